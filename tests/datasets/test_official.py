"""Every benchmark on a tiny tree of exactly its official layout."""

import os

import numpy as np
import pytest
from scipy.io import savemat

from mltool import components
from mltool.datasets import (
    cars196,
    compcars,
    cub200,
    fashion200k,
    inshop,
    nabirds,
    omniglot,
    open_data,
    sop,
    vehicleid,
)
from mltool.errors import InputError, UsageError
from mltool.files.lists import csv_list, selection


def touch(root, *names):
    for name in names:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def text(root, name, *lines, end="\n"):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", newline="") as file:
        file.write("".join(line + end for line in lines))


def content(manifest):
    """(name, class, split) of every image."""
    texts = [manifest.label_names[label] for label in manifest.labels]
    names = [name.decode() for name in manifest.names.tolist()]
    splits = [split.decode() for split in manifest.columns["split"].tolist()]
    return list(zip(names, texts, splits, strict=True))


def all_exist(manifest):
    return all(os.path.isfile(path) for path in manifest.paths)


def test_official_counts_are_those_of_the_papers():
    def totals(module):
        return tuple(map(sum, zip(*module.COUNTS.values(), strict=True)))

    assert totals(cub200) == (11_788, 200)
    assert totals(cars196) == (16_185, 196)
    assert totals(sop) == (120_053, 22_634)
    assert totals(omniglot) == (32_460, 1_623)
    assert totals(inshop)[0] == 52_712
    assert inshop.COUNTS["train"][1] + inshop.COUNTS["query"][1] == 7_982
    assert inshop.COUNTS["query"][1] == inshop.COUNTS["gallery"][1]
    assert totals(nabirds)[0] == 48_562
    assert totals(compcars)[0] == 30_955
    assert sum(fashion200k.COUNTS.values()) == 201_838


@pytest.mark.parametrize(
    "name",
    [
        "cub200",
        "cars196",
        "sop",
        "inshop",
        "omniglot",
        "nabirds",
        "compcars",
        "fashion200k",
        "vehicleid",
    ],
)
def test_a_wrong_folder_says_what_is_looked_for(name, tmp_path):
    with pytest.raises(InputError, match=r"there is no .* is it the right folder"):
        components.load("datasets", name)(str(tmp_path))


# CUB-200-2011

BIRDS = ["001.Black_Albatross/b.jpg", "001.Black_Albatross/a.jpg", "002.Gull/._x.jpg"]
BIRDS += ["002.Gull/y.jpg", "010.Auk/q.jpg", "011.Wren/r.jpg"]


@pytest.fixture
def birds(tmp_path, monkeypatch):
    monkeypatch.setattr(cub200, "COUNTS", {"train": (3, 2), "test": (2, 2)})
    root = tmp_path / "CUB_200_2011"
    touch(root / "images", *BIRDS)
    listed = [name for name in BIRDS if "._" not in name]
    text(root, "images.txt", *(f"{n} {name}" for n, name in enumerate(listed, start=1)))
    classes = [int(name[:3]) for name in listed]
    text(root, "image_class_labels.txt", *(f"{n} {c}" for n, c in enumerate(classes, start=1)))
    text(root, "classes.txt", "1 001.Black_Albatross", "2 002.Gull", "10 010.Auk", "11 011.Wren")
    return tmp_path


def test_cub(birds):
    found = cub200.cub200(str(birds))
    assert content(found) == [
        ("001.Black_Albatross/b.jpg", "001.Black_Albatross", "train"),
        ("001.Black_Albatross/a.jpg", "001.Black_Albatross", "train"),
        ("002.Gull/y.jpg", "002.Gull", "train"),
        ("010.Auk/q.jpg", "010.Auk", "test"),
        ("011.Wren/r.jpg", "011.Wren", "test"),
    ]
    assert found.label_names[2:] == ("010.Auk", "011.Wren")
    assert found.root == str(birds / "CUB_200_2011/images")
    assert all_exist(found)
    assert cub200.cub200(str(birds / "CUB_200_2011")).digest() == found.digest()


def test_cub_with_missing_images_names_them(birds):
    os.remove(birds / "CUB_200_2011/images/002.Gull/y.jpg")
    with pytest.raises(InputError, match=r"1 of 5 images are missing \(002\.Gull/y\.jpg\)"):
        cub200.cub200(str(birds))
    os.rename(birds / "CUB_200_2011/images", birds / "elsewhere")
    with pytest.raises(InputError, match=r"5 of 5 images are missing .*, \.\.\."):
        cub200.cub200(str(birds))


def test_cub_of_another_size(birds, monkeypatch):
    monkeypatch.setattr(cub200, "COUNTS", {"train": (3, 2), "test": (5924, 100)})
    with pytest.raises(
        InputError, match=r"5,924 images of 100 classes, but here are 2 of 2; CUB-200 of 2010"
    ):
        cub200.cub200(str(birds))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("images.txt", ["1 a.jpg", "2"], "line 2: 1 fields, not 2"),
        ("images.txt", ["77 001.Black_Albatross/a.jpg"], "has no class"),
        ("images.txt", ["1 ../secret.jpg"], "leads outside"),
        ("images.txt", ["1 /etc/passwd"], "leads outside"),
        ("images.txt", ["1 001.Black_Albatross/a.jpg"] * 2, "more than once"),
        ("image_class_labels.txt", ["1 one"], "'one' is no number"),
        ("classes.txt", [], r"classes\.txt is empty"),
        ("classes.txt", ["1 001.Black_Albatross"], "has no class"),
    ],
)
def test_damaged_cub_lists(birds, name, lines, message):
    text(birds / "CUB_200_2011", name, *lines)
    with pytest.raises(InputError, match=message):
        cub200.cub200(str(birds))


def test_a_list_that_is_not_utf8(birds):
    (birds / "CUB_200_2011/classes.txt").write_bytes(b"1 \xff\n")
    with pytest.raises(InputError, match=r"classes\.txt is not UTF-8"):
        cub200.cub200(str(birds))


# Cars-196

CARS = ["AM General Hummer", "Ram C/V Van 2012", "Audi"]
CAR_CLASSES = [2, 1, 3, 1]


@pytest.fixture
def cars(tmp_path, monkeypatch):
    monkeypatch.setattr(cars196, "COUNTS", {"train": (3, 2), "test": (1, 1)})
    return tmp_path


def annotations(classes, names):
    kinds = [(key, object) for key in ("relative_im_path", "bbox_x1", "class", "test")]
    rows = np.zeros((1, len(classes)), kinds)
    for row, (number, name) in enumerate(zip(classes, names, strict=True)):
        rows[0, row] = (name, 5, np.uint8(number), np.uint8(0))
    return rows


def test_cars_official(cars):
    names = [f"car_ims/{number:06d}.jpg" for number in range(1, 5)]
    touch(cars / "cars196", *names)
    savemat(
        cars / "cars196/cars_annos.mat",
        {
            "annotations": annotations(CAR_CLASSES, names),
            "class_names": np.array([CARS], object),
        },
    )
    found = cars196.cars196(str(cars))
    assert content(found) == [
        ("car_ims/000001.jpg", "Ram C/V Van 2012", "train"),
        ("car_ims/000002.jpg", "AM General Hummer", "train"),
        ("car_ims/000003.jpg", "Audi", "test"),
        ("car_ims/000004.jpg", "AM General Hummer", "train"),
    ]
    assert found.label_names == tuple(CARS)
    assert all_exist(found)
    assert cars196.cars196(str(cars / "cars196")).digest() == found.digest()


def test_cars_repacked(cars):
    text(cars, "names.csv", *CARS)
    text(cars, "anno_train.csv", "00001.jpg,1,2,3,4,2", "00002.jpg,1,2,3,4,1")
    text(cars, "anno_test.csv", "00001.jpg,1,2,3,4,3", "00002.jpg,1,2,3,4,1")
    names = ["train/Ram C-V Van 2012/00001.jpg", "train/AM General Hummer/00002.jpg"]
    names += ["test/Audi/00001.jpg", "test/AM General Hummer/00002.jpg"]
    touch(cars / "car_data/car_data", *names)
    found = cars196.cars196(str(cars))
    assert [row[0] for row in content(found)] == names
    assert [row[1] for row in content(found)] == [CARS[1], CARS[0], CARS[2], CARS[0]]
    assert [row[2] for row in content(found)] == ["train", "train", "test", "train"]
    assert all_exist(found)
    text(cars, "anno_test.csv", "00001.jpg,1,2,3,4,9")
    with pytest.raises(InputError, match="no class 9"):
        cars196.cars196(str(cars))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no mat",
        b"\x80\x04\x95cposix\nsystem\n(S'touch /tmp/x'\ntR.",
        b"MATLAB 7.3 MAT-file" + bytes(600),
    ],
)
def test_damaged_car_annotations(cars, data):
    (cars / "cars_annos.mat").write_bytes(data)
    with pytest.raises(InputError, match=r"cars_annos\.mat is damaged"):
        cars196.cars196(str(cars))


def test_car_annotations_of_other_things(cars):
    savemat(cars / "cars_annos.mat", {"annotations": np.zeros(3), "class_names": np.zeros(2)})
    with pytest.raises(InputError, match=r"cars_annos\.mat is damaged"):
        cars196.cars196(str(cars))
    with open(cars / "cars_annos.mat", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match="larger than"):
        cars196.cars196(str(cars))


# Stanford Online Products

PRODUCTS = [(1, 1, "bicycle_final/1_0.JPG"), (1, 1, "bicycle_final/1_1.JPG")]
PRODUCTS += [(2, 12, "table_final/2_0.JPG"), (10, 1, "bicycle_final/10_0.JPG")]


@pytest.fixture
def products(tmp_path, monkeypatch):
    monkeypatch.setattr(sop, "COUNTS", {"train": (3, 2), "test": (1, 1)})

    def make(lists, images):
        rows = [f"{n} {c} {s} {path}" for n, (c, s, path) in enumerate(PRODUCTS, start=1)]
        header = "image_id class_id super_class_id path"
        text(tmp_path / lists, "Ebay_train.txt", header, *rows[:3])
        text(tmp_path / lists, "Ebay_test.txt", header, rows[3], end="\r\n")
        touch(tmp_path / images, *(path for _, _, path in PRODUCTS))
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("lists", "images"),
    [
        (".", "."),
        ("Stanford_Online_Products", "Stanford_Online_Products"),
        ("Info_Files", "images"),
        ("Stanford_Online_Products/Info_Files", "Stanford_Online_Products/images"),
    ],
)
def test_sop(products, lists, images):
    found = sop.sop(products(lists, images))
    assert content(found) == [
        ("bicycle_final/1_0.JPG", "bicycle/1", "train"),
        ("bicycle_final/1_1.JPG", "bicycle/1", "train"),
        ("table_final/2_0.JPG", "table/2", "train"),
        ("bicycle_final/10_0.JPG", "bicycle/10", "test"),
    ]
    assert found.label_names == ("bicycle/1", "table/2", "bicycle/10")
    assert found.columns["super_class"].tolist() == [b"bicycle", b"bicycle", b"table", b"bicycle"]
    assert all_exist(found)


def test_sop_lists_of_another_dataset(products, monkeypatch):
    root = products(".", ".")
    monkeypatch.setattr(sop, "COUNTS", {"train": (3, 2), "test": (2, 1)})
    with pytest.raises(InputError, match="lists of another dataset go by the same file names"):
        sop.sop(root)


# In-Shop

CLOTHES = [("WOMEN/Dresses/id_00000002/02_1_front.jpg", "train")]
CLOTHES += [("MEN/Jackets/id_00000007/01_1_front.jpg", "query")]
CLOTHES += [("MEN/Jackets/id_00000007/01_2_side.jpg", "gallery")]


@pytest.fixture
def clothes(tmp_path, monkeypatch):
    monkeypatch.setattr(inshop, "COUNTS", {"train": (1, 1), "query": (1, 1), "gallery": (1, 1)})

    def make(lists, images, stated="3"):
        rows = [f"img/{path}   {path.split('/')[2]}      {part}  " for path, part in CLOTHES]
        header = "image_name item_id evaluation_status"
        text(tmp_path / lists, "list_eval_partition.txt", stated, header, *rows)
        touch(tmp_path / images, *(path for path, _ in CLOTHES))
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("lists", "images"),
    [
        ("Eval", "Img/img"),
        ("Eval", "img"),
        (".", "img"),
        (".", "Img/img"),
        ("Inshop_Clothes/Eval", "Inshop_Clothes/Img/img"),
        ("InShop_Clothes/Eval", "InShop_Clothes/img"),
    ],
)
def test_inshop(clothes, lists, images):
    found = inshop.inshop(clothes(lists, images))
    assert content(found) == [
        ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
        ("img/MEN/Jackets/id_00000007/01_1_front.jpg", "id_00000007", "query"),
        ("img/MEN/Jackets/id_00000007/01_2_side.jpg", "id_00000007", "gallery"),
    ]
    assert found.columns["is_query"].tolist() == [False, True, False]
    assert found.columns["is_gallery"].tolist() == [False, False, True]
    assert found.labels[1] == found.labels[2]
    assert all_exist(found)


def test_damaged_inshop_lists(clothes):
    with pytest.raises(InputError, match="has 3 rows, but says 4"):
        inshop.inshop(clothes("Eval", "img", stated="4"))
    root = clothes("Eval", "img", stated="")
    with pytest.raises(InputError, match="rows, but says image_name"):
        inshop.inshop(root)
    text(os.path.join(root, "Eval"), "list_eval_partition.txt")
    with pytest.raises(InputError, match="is empty"):
        inshop.inshop(root)


# Omniglot

DRAWINGS = ["Greek/character01/0394_01.png", "Greek/character01/0394_02.png"]
DRAWINGS += ["Greek/character02/0395_01.png", "Tengwar/character01/0700_01.png"]


@pytest.mark.parametrize("prefix", ["images_", ""])
def test_omniglot(tmp_path, monkeypatch, prefix):
    monkeypatch.setattr(omniglot, "COUNTS", {"background": (3, 2), "evaluation": (1, 1)})
    touch(tmp_path / f"{prefix}background", *DRAWINGS[:3], "Greek/._x.png", "Greek/.DS_Store")
    touch(tmp_path / f"{prefix}evaluation", DRAWINGS[3])
    touch(tmp_path / "strokes", "x/y/z.png")
    found = omniglot.omniglot(str(tmp_path))
    assert content(found) == [
        (f"{prefix}background/{DRAWINGS[0]}", "Greek/character01", "background"),
        (f"{prefix}background/{DRAWINGS[1]}", "Greek/character01", "background"),
        (f"{prefix}background/{DRAWINGS[2]}", "Greek/character02", "background"),
        (f"{prefix}evaluation/{DRAWINGS[3]}", "Tengwar/character01", "evaluation"),
    ]
    assert found.columns["alphabet"].tolist() == [b"Greek", b"Greek", b"Greek", b"Tengwar"]
    assert all_exist(found)
    monkeypatch.setattr(omniglot, "COUNTS", {"background": (3, 3), "evaluation": (1, 1)})
    with pytest.raises(InputError, match="background split of Omniglot has 3 images of 3 classes"):
        omniglot.omniglot(str(tmp_path))


def test_half_of_omniglot(tmp_path):
    touch(tmp_path / "images_background", DRAWINGS[0])
    with pytest.raises(InputError, match="there is no images_evaluation"):
        omniglot.omniglot(str(tmp_path))


# NABirds

AMERICAN = {"0817/0a.jpg": ("00-a", 817, 1), "0817/0b.jpg": ("00-b", 817, 0)}
AMERICAN |= {"0295/1c.jpg": ("00-c", 295, 0), "0295/1d.jpg": ("00-d", 295, 1)}


@pytest.fixture
def american(tmp_path, monkeypatch):
    monkeypatch.setattr(nabirds, "COUNTS", {"train": (2, 2), "test": (2, 2)})
    root = tmp_path / "nabirds"
    touch(root / "images", *AMERICAN)
    text(root, "images.txt", *(f"{image} {name}" for name, (image, _, _) in AMERICAN.items()))
    text(root, "image_class_labels.txt", *(f"{i} {c}" for i, c, _ in AMERICAN.values()))
    text(root, "train_test_split.txt", *(f"{i} {s}" for i, _, s in AMERICAN.values()))
    text(root, "classes.txt", "0 Birds", "295 Mallard (Male)", "817 Oak Titmouse", "900 Loons")
    return tmp_path


def test_nabirds(american):
    listed = nabirds.nabirds(str(american))
    assert content(listed) == [
        ("0817/0a.jpg", "0817.Oak Titmouse", "train"),
        ("0817/0b.jpg", "0817.Oak Titmouse", "test"),
        ("0295/1c.jpg", "0295.Mallard (Male)", "test"),
        ("0295/1d.jpg", "0295.Mallard (Male)", "train"),
    ]
    assert listed.label_names == ("0295.Mallard (Male)", "0817.Oak Titmouse")
    assert all_exist(listed)
    assert nabirds.nabirds(str(american / "nabirds")).digest() == listed.digest()


@pytest.mark.parametrize("name", ["image_class_labels.txt", "train_test_split.txt", "classes.txt"])
def test_damaged_nabirds_lists(american, name):
    text(american / "nabirds", name, "00-a 1")
    with pytest.raises(InputError, match="has no class or no split"):
        nabirds.nabirds(str(american))


# CompCars

MODELS = {"78/1/2014/a1.jpg": "train", "78/12/2010/b2.jpg": "train"}
MODELS |= {"78/1/2011/c3.jpg": "test", "9/3/unknown/d4.jpg": "test"}


@pytest.mark.parametrize("top", ["data", "CompCars/data"])
def test_compcars(tmp_path, monkeypatch, top):
    monkeypatch.setattr(compcars, "COUNTS", {"train": (2, 2), "test": (2, 2)})
    touch(tmp_path / top / "image", *MODELS, "9/4/2012/unlisted.jpg")
    for split in ("train", "test"):
        rows = [name for name, of in MODELS.items() if of == split]
        text(tmp_path / top / "train_test_split/classification", f"{split}.txt", *rows)
    listed = compcars.compcars(str(tmp_path))
    labels = ["78/1", "78/12", "78/1", "9/3"]
    assert content(listed) == [
        (name, label, split) for (name, split), label in zip(MODELS.items(), labels, strict=True)
    ]
    assert listed.label_names == ("78/1", "9/3", "78/12")  # in order of the model's number
    assert listed.columns["year"].tolist() == [b"2014", b"2010", b"2011", b"unknown"]
    assert all_exist(listed)
    text(tmp_path / top / "train_test_split/classification", "test.txt", "78/1/c3.jpg")
    with pytest.raises(InputError, match="is not MAKE/MODEL/YEAR/FILE"):
        compcars.compcars(str(tmp_path))


# Fashion200k

GARMENTS = {"women/dresses/casual/11/11_0.jpeg": ("dress", "train")}
GARMENTS |= {"women/dresses/casual/11/11_1.jpeg": ("dress", "test")}
GARMENTS |= {"women/tops/blouses/5/5_0.jpeg": ("top", "train")}


@pytest.mark.parametrize("top", [".", "fashion200k"])
def test_fashion200k(tmp_path, monkeypatch, top):
    monkeypatch.setattr(fashion200k, "COUNTS", {"train": 2, "test": 1})
    monkeypatch.setattr(fashion200k, "_KINDS", ("dress", "top"))
    touch(tmp_path / top, *GARMENTS, "women/tops/blouses/6/6_0.jpeg")
    for kind in ("dress", "top"):
        for split in ("train", "test"):
            names = [name for name, of in GARMENTS.items() if of == (kind, split)]
            rows = [f"{name}\t0.98\tblue dress" for name in names or ["women/tops/x/7/7.jpeg"]]
            text(tmp_path / top / "labels", f"{kind}_{split}_detect_all.txt", *rows)
    touch(tmp_path / top, "women/tops/x/7/7.jpeg")
    monkeypatch.setattr(fashion200k, "COUNTS", {"train": 2, "test": 2})
    listed = fashion200k.fashion200k(str(tmp_path))
    assert content(listed) == [
        ("women/dresses/casual/11/11_0.jpeg", "11", "train"),
        ("women/tops/blouses/5/5_0.jpeg", "5", "train"),
        ("women/dresses/casual/11/11_1.jpeg", "11", "test"),
        ("women/tops/x/7/7.jpeg", "7", "test"),
    ]
    assert listed.columns["kind"].tolist() == [b"dress", b"top", b"dress", b"top"]
    assert listed.columns["style"].tolist() == [b"casual", b"blouses", b"casual", b"x"]
    assert all_exist(listed)
    monkeypatch.setattr(fashion200k, "COUNTS", {"train": 3, "test": 2})
    with pytest.raises(InputError, match="train split of Fashion200k has 3 images"):
        fashion200k.fashion200k(str(tmp_path))


# VehicleID

VEHICLES = {
    "train_list": ["0000001 7", "0000002 7", "0000003 12"],
    "test_list_800": ["0000004 3"],
    "test_list_1600": ["0000004 3", "0000005 20", "0000006 20"],
    "test_list_2400": ["0000007 3", "0000006 20", "0000008 5"],
}


@pytest.fixture
def vehicles(tmp_path, monkeypatch):
    counts = {
        "train": (3, 2),
        "test-800": (None, 1),
        "test-1600": (None, 2),
        "test-2400": (None, 3),
    }
    monkeypatch.setattr(vehicleid, "COUNTS", counts)
    top = tmp_path / "VehicleID_V1.0"
    touch(top / "image", *(f"000000{number}.jpg" for number in range(10)))
    for name, rows in VEHICLES.items():
        text(top / "train_test_split", f"{name}.txt", *rows)
    return tmp_path


def test_vehicleid(vehicles):
    listed = vehicleid.vehicleid(str(vehicles))
    expected = [("7", "train")] * 2 + [("12", "train")]
    expected += [(label, "test") for label in ("3", "20", "20", "3", "5")]
    assert content(listed) == [
        (f"000000{number}.jpg", *pair) for number, pair in enumerate(expected, start=1)
    ]
    assert listed.label_names == ("3", "5", "7", "12", "20")
    assert all_exist(listed)
    assert selection.splits(listed) == ["test", "test-1600", "test-2400", "test-800", "train"]


@pytest.mark.parametrize("size", [800, 1600, 2400])
def test_lists_of_vehicleid_may_share_images(vehicles, tmp_path, size):
    names = [f"{row.split()[0]}.jpg".encode() for row in VEHICLES[f"test_list_{size}"]]
    listed = open_data([f"vehicleid:{vehicles}:test-{size}"])
    assert sorted(listed.names.tolist()) == sorted(names)
    csv_list.write_csv(tmp_path / "all.csv", open_data([f"vehicleid:{vehicles}"]))
    again = open_data([str(tmp_path / "all.csv")], split=f"test-{size}")
    assert again.names.tolist() == listed.names.tolist()
    assert again.label_names == listed.label_names
    with pytest.raises(UsageError, match="there are: test, test-1600, test-2400, test-800, train"):
        open_data([f"vehicleid:{vehicles}:test-900"])


def test_damaged_vehicleid_lists(vehicles):
    folder = vehicles / "VehicleID_V1.0/train_test_split"
    text(folder, "test_list_1600.txt", "0000004 20", "0000005 3")
    with pytest.raises(InputError, match="0000004 has another class in the other lists"):
        vehicleid.vehicleid(str(vehicles))
    text(folder, "test_list_1600.txt", "0000004 3")
    with pytest.raises(InputError, match="test-1600 split of VehicleID has images of 2 classes"):
        vehicleid.vehicleid(str(vehicles))
    text(folder, "test_list_1600.txt", "0000004 car")
    with pytest.raises(InputError, match="is no number"):
        vehicleid.vehicleid(str(vehicles))
