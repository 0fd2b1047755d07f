"""Hits in memory, as table, TSV, TREC run and HDF5."""

import json

import h5py
import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import hits as hit_files
from mltool.files.describe import read_facts
from mltool.files.hits import Hits, as_run, as_text, as_tsv
from mltool.files.verify import check

STEP = {"command": "search", "counts": {}}


@pytest.fixture
def hits():
    rows = np.array([[2, 0, -1], [1, -1, -1]])
    scores = np.array([[0.75, 0.5, 9.0], [0.25, 9.0, 9.0]])
    gallery = np.array([b"a b.jpg", "é\tx".encode(), b"c"], "S")
    return Hits.from_rows(np.array([b"q 1", b"q2"], "S"), gallery, rows, scores)


def test_rows_end_where_the_gallery_does(hits):
    assert list(hits.rows()) == [
        ("q 1", 1, "c", 0.75),
        ("q 1", 2, "a b.jpg", 0.5),
        ("q2", 1, "é\tx", 0.25),
    ]
    assert np.isneginf(hits.scores[hits.names == b""]).all()


def test_a_lowest_score(hits):
    assert [name for _, _, name, _ in hits.drop_below(0.5).rows()] == ["c", "a b.jpg"]
    assert list(hits.drop_below(2.0).rows()) == []


def test_tsv_escapes_tabs(hits):
    assert list(as_tsv(hits)) == [
        "query\trank\tname\tscore",
        "q 1\t1\tc\t0.75",
        "q 1\t2\ta b.jpg\t0.5",
        "q2\t1\té\\tx\t0.25",
    ]


def test_trec_has_six_columns_whatever_the_names(hits):
    lines = [line.split() for line in as_run(hits)]
    assert {len(line) for line in lines} == {6}
    assert lines[1] == ["q%201", "Q0", "a%20b.jpg", "2", "0.5", "mltool"]


def test_the_table_is_safe_to_print_and_not_endless(hits):
    text = as_text(hits, most=1)
    assert "1 queries more" in text
    assert "\\t" in as_text(hits)
    none = as_text(hits.drop_below(2.0))
    assert none.count("(none)") == 2


def test_hdf5(hits, tmp_path):
    hit_files.write(tmp_path / "hits.h5", hits, (STEP,))
    with h5py.File(tmp_path / "hits.h5") as file:
        assert file.attrs["format"].decode() == "mltool-hits"
        assert file["query_names"].asstr()[:].tolist() == ["q 1", "q2"]
        assert file["names"].asstr()[0].tolist() == ["c", "a b.jpg", ""]
        np.testing.assert_array_equal(file["scores"], hits.scores)
        assert json.loads(file["history"][0])["command"] == "search"


@pytest.mark.parametrize("name", ["hits.tsv", "hits.run", "hits.TSV"])
def test_text_files_have_their_history_beside(hits, tmp_path, name):
    hit_files.write(tmp_path / name, hits, (STEP,))
    lines = (tmp_path / name).read_text().splitlines()
    assert lines == list(as_run(hits) if name.endswith("run") else as_tsv(hits))
    assert (tmp_path / f"{name}.history.json").exists()


def test_no_hits_and_no_queries(tmp_path):
    nobody = Hits.from_rows(
        np.array([], "S1"), np.array([], "S1"), np.zeros((0, 3), np.int64), np.zeros((0, 3))
    )
    nothing = Hits.from_rows(
        np.array([b"q"]), np.array([], "S1"), np.full((1, 3), -1), np.full((1, 3), -np.inf)
    )
    for hits in (nobody, nothing):
        assert list(hits.rows()) == []
        hit_files.write(tmp_path / "hits.h5", hits, ())


def test_hdf5_round_trip(hits, tmp_path):
    hit_files.write(tmp_path / "hits.h5", hits, (STEP,))
    found = hit_files.read(tmp_path / "hits.h5")
    assert list(found.rows()) == list(hits.rows())
    np.testing.assert_array_equal(found.scores, hits.scores)
    assert check(tmp_path / "hits.h5", full=False) == "hits"
    assert read_facts(str(tmp_path / "hits.h5"))["kind"] == "hits"
    assert len(str(read_facts(str(tmp_path / "hits.h5"))["digest"])) == 64


@pytest.mark.parametrize("name", ["query_names", "names", "scores", "history"])
def test_damage_anywhere_in_the_content_is_found(hits, tmp_path, name):
    path = tmp_path / "hits.h5"
    hit_files.write(path, hits, (STEP,))
    with h5py.File(path) as file:
        place = file[name].id.get_offset()
    data = bytearray(path.read_bytes())
    data[place + 1] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        hit_files.read(path)
    with pytest.raises(InputError):
        check(path, full=False)


def test_other_files_are_no_hits(hits, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["names"] = [1]
    with pytest.raises(InputError, match="mltool-hits"):
        hit_files.read(tmp_path / "other.h5")
    hit_files.write(tmp_path / "hits.h5", hits, ())
    whole = (tmp_path / "hits.h5").read_bytes()
    (tmp_path / "hits.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        hit_files.read(tmp_path / "hits.h5")
