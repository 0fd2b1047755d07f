"""Ground truths of the revisited protocol: what is read, and what is refused in one sentence."""

import json
import os
import pickle

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files.landmarks import read, stem

TRUTH = {
    "imlist": ["a", "b.v2", "c", "d"],
    "qimlist": ["q", "p"],
    "gnd": [
        {"bbx": [1.5, 2, 30, 40.25], "easy": [0, 3], "hard": [1], "junk": []},
        {"bbx": [0, 0, 5, 5], "easy": [], "hard": [], "junk": [2]},
    ],
}


def written(folder, truth, name="gnd.json"):
    path = folder / name
    path.write_bytes(pickle.dumps(truth) if name.endswith("pkl") else json.dumps(truth).encode())
    return str(path)


def as_arrays(truth):
    """As the distributed files hold them."""
    answers = [{key: np.array(value) for key, value in one.items()} for one in truth["gnd"]]
    for answer in answers:
        for key in ("easy", "hard", "junk"):
            answer[key] = answer[key].astype(np.int64)
    return truth | {"gnd": answers}


@pytest.mark.parametrize("name", ["gnd.json", "gnd.JSON", "gnd.pkl"])
def test_pickle_and_json_say_the_same(tmp_path, name):
    truth = read(written(tmp_path, TRUTH, name.replace("JSON", "json")))
    if name == "gnd.JSON":
        os.rename(tmp_path / "gnd.json", tmp_path / name)
        truth = read(str(tmp_path / name))
    assert truth.queries.tolist() == [b"q", b"p"]
    assert truth.gallery.tolist() == [b"a", b"b.v2", b"c", b"d"]
    assert truth.boxes.tolist() == [[1.5, 2, 30, 40.25], [0, 0, 5, 5]]
    assert [{kind: rows.tolist() for kind, rows in one.items()} for one in truth.answers] == [
        {"easy": [0, 3], "hard": [1], "junk": []},
        {"easy": [], "hard": [], "junk": [2]},
    ]


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_in_a_pickle(tmp_path, protocol):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps(as_arrays(TRUTH), protocol))
    truth, plain = read(str(path)), read(written(tmp_path, TRUTH))
    assert (truth.boxes == plain.boxes).all()
    for one, other in zip(truth.answers, plain.answers, strict=True):
        assert all(np.array_equal(one[kind], other[kind]) for kind in one)


def test_boxes_may_be_left_out(tmp_path):
    truth = json.loads(json.dumps(TRUTH))
    del truth["gnd"][1]["bbx"]
    assert np.isnan(read(written(tmp_path, truth)).boxes).any(axis=1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imlist": None}, "imlist is no list"),
        ({"imlist": ["a", 3]}, "no list of names"),
        ({"imlist": []}, "no list of names"),
        ({"imlist": ["a", "a.jpg", "b", "c"]}, "more than once"),
        ({"qimlist": ["q"]}, "gnd tells of 2 queries, but qimlist names 1"),
        ({"gnd": 5}, "gnd is no list"),
        ({"gnd": [{}, {}]}, "gnd of query 0 lacks easy, hard, junk"),
        ({"gnd": [1, 2]}, "lacks easy, hard, junk"),
    ],
)
def test_other_fields_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read(written(tmp_path, TRUTH | change, "gnd.pkl"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"easy": [4]}, "rows of imlist, from 0 to 3"),  # counted from 1, as in the .mat
        ({"easy": [-1]}, "rows of imlist"),
        ({"junk": [0.0]}, "rows of imlist"),
        ({"junk": [True]}, "rows of imlist"),
        ({"hard": "a"}, "hard is no list"),
        ({"hard": [0]}, "more than once in easy, hard, junk"),
        ({"easy": [3, 3]}, "more than once"),
        ({"bbx": [1, 2, 3]}, "bbx is not the four numbers"),
        ({"bbx": [1, 2, 3, "4"]}, "bbx is not"),
        ({"bbx": [1, 2, 3, float("nan")]}, "bbx is not"),
        ({"bbx": [1, 2, 3, 10**400]}, "bbx is not"),
    ],
)
def test_answers_that_do_not_fit(tmp_path, change, message):
    truth = TRUTH | {"gnd": [TRUTH["gnd"][0] | change, TRUTH["gnd"][1]]}
    with pytest.raises(InputError, match=message) as caught:
        read(written(tmp_path, truth, "gnd.pkl"))
    assert "gnd of query 0" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b'{"imlist": NaN}', b"\xff"])
def test_damaged_json(tmp_path, data):
    (tmp_path / "gnd.json").write_bytes(data)
    with pytest.raises(InputError, match=r"gnd\.json is no JSON"):
        read(str(tmp_path / "gnd.json"))


class Hostile:
    def __reduce__(self):
        return os.mkdir, (os.environ["HOSTILE"],)


def test_nothing_in_a_pickle_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTILE", str(tmp_path / "owned"))
    with pytest.raises(InputError, match="a pickle can run programs"):
        read(written(tmp_path, TRUTH | {"gnd": [Hostile()]}, "gnd.pkl"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a.jpg", b"a"),
        (b"jpg/a.JPEG", b"a"),
        (b"x/y/a.b.png", b"a.b"),
        (b"a.b", b"a.b"),
        (b"a", b"a"),
    ],
)
def test_stems(name, expected):
    assert stem(name) == expected
