"""Small invented copies of 23 competitions: their tables in exact form, and images of random colours."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

IMET_LABELS = ("culture::greek", "culture::roman", "tag::birds", "tag::boats", "tag::trees")
TRAIN, TEST = 30, 6  # images


@dataclass(frozen=True)
class Competition:
    """How a competition is written and declared."""

    write: Callable[[Path], None]
    options: tuple[str, ...]
    """Of `build_kernel.py init` beside the folder and --out."""
    truth: Callable[[int], object] = field(default=lambda place: None)
    """The true answer for the training image of an index, as the competition writes it."""
    served: str = "yes"
    """Or why it is not."""


def write_competition(name: str, folder: Path) -> Competition:
    """Write the competition `name` into the folder `folder`, which is made; return it."""
    folder.mkdir(parents=True)
    COMPETITIONS[name].write(folder)
    return COMPETITIONS[name]


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_json(path: Path, document: object) -> None:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def write_pictures(folder: Path, names: Sequence[str], seed: int = 0) -> None:
    """Write an image of 9 x 7 random pixels for each relative path."""
    random = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8)).save(path)


def name_images(start: str, count: int, suffix: str = "") -> list[str]:
    """Return ids of hexadecimal digits."""
    return [f"{start}{37 * place + 11:07x}{suffix}" for place in range(count)]


def write_plain(
    folder: Path,
    header: Sequence[str],
    truth: Callable[[int], Sequence[object]],
    sample: Sequence[object],
    *,
    ids: tuple[Sequence[str], Sequence[str]] | None = None,
    places: tuple[str, str] = ("train/{}.jpg", "test/{}.jpg"),
    table: str = "train.csv",
    sample_header: Sequence[str] = (),
    hidden: int = 0,
) -> None:
    """Write a table of training images, a sample submission, and the images of both.

    `header`: of the table; `truth`: its cells beside the id; `sample`: the cells of each row of the sample, whose
    header is the same unless `sample_header` is given; `hidden`: this many of the test images are not there.
    """
    train_ids, test_ids = ids or (name_images("a", TRAIN), name_images("b", TEST))
    write_table(folder / table, header, [(name, *truth(place)) for place, name in enumerate(train_ids)])
    write_table(folder / "sample_submission.csv", sample_header or header, [(name, *sample) for name in test_ids])
    write_pictures(folder, [places[0].format(name) for name in train_ids], 1)
    write_pictures(folder, [places[1].format(name) for name in test_ids[: TEST - hidden]], 2)


def imet_truth(place: int) -> str:
    """Return one culture and one or two tags."""
    return " ".join(map(str, sorted({place % 2, 2 + place % 3, 2 + place // 3 % 3})))


def write_imet_2019(folder: Path) -> None:
    write_table(folder / "labels.csv", ("attribute_id", "attribute_name"), list(enumerate(IMET_LABELS)))
    places = ("train/{}.png", "test/{}.png")
    write_plain(folder, ("id", "attribute_ids"), lambda place: [imet_truth(place)], ["0 1 2"], places=places)


def write_imet_2020(folder: Path) -> None:
    groups = ("country", "culture", "dimension", "medium", "tags")
    names = [f"{group}::{kind}" for group in groups for kind in ("first, or one", "second")]
    write_table(folder / "labels.csv", ("attribute_id", "attribute_name"), list(enumerate(names)))
    ids = ([f"{place + 1:032x}" for place in range(TRAIN)], [f"{place + 900:032x}" for place in range(TEST)])
    places = ("train/{}.png", "test/{}.png")
    write_plain(
        folder, ("id", "attribute_ids"), lambda place: [imet2020_truth(place)], ["0 1 2"], ids=ids, places=places
    )


def imet2020_truth(place: int) -> str:
    """Return a label of each group, of every second image."""
    return " ".join(str(2 * group + (place >> group) % 2) for group in range(5) if (place + group) % 3)


def write_cassava(folder: Path) -> None:
    ids = (name_images("", TRAIN, ".jpg"), name_images("9", TEST, ".jpg"))
    places = ("train_images/{}", "test_images/{}")
    header = ("image_id", "label")
    write_plain(folder, header, lambda place: [place % 5], [4], ids=ids, places=places, hidden=TEST - 1)


PATHOLOGY = ("scab", "healthy", "frog_eye_leaf_spot", "rust", "scab frog_eye_leaf_spot", "complex", "rust complex")


def write_pathology_2021(folder: Path) -> None:
    ids = (name_images("8", TRAIN, ".jpg"), name_images("9", TEST, ".jpg"))
    places = ("train_images/{}", "test_images/{}")
    header = ("image", "labels")
    write_plain(folder, header, lambda place: [PATHOLOGY[place % 7]], ["healthy"], ids=ids, places=places, hidden=3)


def write_pathology_2020(folder: Path) -> None:
    ids = ([f"Train_{place}" for place in range(TRAIN)], [f"Test_{place}" for place in range(TEST)])
    header = ("image_id", "healthy", "multiple_diseases", "rust", "scab")
    places = ("images/{}.jpg", "images/{}.jpg")
    write_plain(
        folder, header, lambda place: np.eye(4, dtype=int)[place % 4].tolist(), [0.25] * 4, ids=ids, places=places
    )


RANZCR = (
    *(f"{device} - {state}" for device in ("ETT", "NGT", "CVC") for state in ("Abnormal", "Borderline", "Normal")),
    "NGT - Incompletely Imaged",
    "Swan Ganz Catheter Present",
)


def write_ranzcr(folder: Path) -> None:
    ids = ([f"1.2.826.0.{place}" for place in range(TRAIN)], [f"1.2.826.1.{place}" for place in range(TEST)])
    header = ("StudyInstanceUID", *RANZCR)
    random = np.random.default_rng(3).integers(0, 2, (TRAIN, len(RANZCR))).tolist()
    write_plain(
        folder, (*header, "PatientID"), lambda place: [*random[place], f"p{place // 3}"], [0] * len(RANZCR),
        ids=ids, sample_header=header,
    )  # fmt: skip


HOTELS = (36363, 53586, 18807, 64314, 60181, 7)


def write_hotels(folder: Path) -> None:
    train_ids, test_ids = name_images("8", TRAIN, ".jpg"), name_images("9", TEST, ".jpg")
    rows = [(name, place % 4, HOTELS[place % 6], "2018-07-01 12:00:00") for place, name in enumerate(train_ids)]
    write_table(folder / "train.csv", ("image", "chain", "hotel_id", "timestamp"), rows)
    sample = [(name, "36363 53586 18807 64314 60181") for name in test_ids]
    write_table(folder / "sample_submission.csv", ("image", "hotel_id"), sample)
    write_pictures(folder, [f"train_images/{chain}/{name}" for name, chain, *_ in rows])
    write_pictures(folder, [f"test_images/{test_ids[0]}"])


WHALES = ("new_whale", "w_1287fbc", "w_98baff9", "w_7554f44", "w_1eafe46", "w_0000001", "w_0000002")


def whale_truth(place: int) -> str:
    """Return a whale; the last ones have one image."""
    return WHALES[5] if place == 28 else WHALES[6] if place == 29 else WHALES[place % 5]


def write_whales(folder: Path) -> None:
    ids = (name_images("8", TRAIN, ".jpg"), name_images("9", TEST, ".jpg"))
    sample = [" ".join(WHALES[:5])]
    places = ("train/{}", "test/{}")
    write_plain(folder, ("Image", "Id"), lambda place: [whale_truth(place)], sample, ids=ids, places=places)


def write_inaturalist(folder: Path) -> None:
    train = [(place, f"train_val2019/Plants/{place % 8}/{place:06x}.jpg") for place in range(TRAIN)]
    test = [(268243 + place, f"test2019/{place + 777:06x}.jpg") for place in range(TEST)]
    write_coco(
        folder / "train2019.json", train, lambda place: place % 8, [(label, str(7 - label)) for label in range(8)]
    )
    write_coco(folder / "test2019.json", test)
    write_table(folder / "sample_submission.csv", ("id", "predicted"), [(name, "1 2 3 4 5") for name, _ in test])
    write_pictures(folder, [path for _, path in train + test])


def write_coco(
    path: Path,
    images: Sequence[tuple[object, str]],
    truth: Callable[[int], object] | None = None,
    categories: Sequence[tuple[object, str]] = (),
) -> None:
    """Write JSON in COCO's form: (id, file name) of images, the category of each index, (id, name) of categories."""
    document: dict[str, object] = {"images": [{"id": name, "file_name": file, "width": 9} for name, file in images]}
    if truth is not None:
        document["annotations"] = [
            {"id": place, "image_id": name, "category_id": truth(place)} for place, (name, _) in enumerate(images)
        ]
        document["categories"] = [{"id": label, "name": text, "supercategory": "x"} for label, text in categories]
    write_json(path, document)


def write_herbarium(folder: Path) -> None:
    train = [(place, f"images/{place % 3:03d}/{place:02d}/{place + 5}.jpg") for place in range(TRAIN)]
    test = [(place, f"images/{place % 2:03d}/{place}.jpg") for place in range(TEST)]
    names = [(label, f"Plantago {label} L.") for label in range(6)]
    write_coco(folder / "train" / "metadata.json", train, lambda place: place % 6, names)
    write_coco(folder / "test" / "metadata.json", test)
    write_table(folder / "sample_submission.csv", ("Id", "Predicted"), [(name, 1) for name, _ in test])
    write_pictures(folder, [*(f"train/{path}" for _, path in train), *(f"test/{path}" for _, path in test)])


def write_iwildcam(folder: Path) -> None:
    train_ids, test_ids = name_images("5998cfa4-23d2-11e8-", TRAIN), name_images("b005e5b2-2c0b-11e9-", TEST)
    header = ("category_id", "date_captured", "file_name", "frame_num", "id", "location")
    rows = [(place % 4, "2011-05-13", f"{name}.jpg", 1, name, place % 7) for place, name in enumerate(train_ids)]
    write_table(folder / "train.csv", header, rows)
    tests = [("2011-05-13", f"{name}.jpg", 1, name, 3) for name in test_ids]
    write_table(folder / "test.csv", header[1:], tests)
    write_table(folder / "sample_submission.csv", ("Id", "Predicted"), [(name, 0) for name in test_ids])
    write_pictures(folder, [f"train_images/{name}.jpg" for name in train_ids])
    write_pictures(folder, [f"test_images/{name}.jpg" for name in test_ids])


PADDY = ("bacterial_leaf_blight", "blast", "normal", "tungro")


def write_paddy(folder: Path) -> None:
    train_ids = [f"{100330 + place}.jpg" for place in range(TRAIN)]
    test_ids = [f"{200001 + place}.jpg" for place in range(TEST)]
    rows = [(name, PADDY[place % 4], "ADT45", 45 + place % 3) for place, name in enumerate(train_ids)]
    write_table(folder / "train.csv", ("image_id", "label", "variety", "age"), rows)
    write_table(folder / "sample_submission.csv", ("image_id", "label"), [(name, "") for name in test_ids])
    write_pictures(folder, [f"train_images/{label}/{name}" for name, label, *_ in rows])
    write_pictures(folder, [f"test_images/{name}" for name in test_ids])


SEEDLINGS = ("Black-grass", "Common wheat", "Maize", "Sugar beet")


def write_seedlings(folder: Path) -> None:
    train_ids, test_ids = name_images("0", TRAIN, ".png"), name_images("f", TEST, ".png")
    write_table(folder / "sample_submission.csv", ("file", "species"), [(name, "Sugar beet") for name in test_ids])
    write_pictures(folder, [f"train/{SEEDLINGS[place % 4]}/{name}" for place, name in enumerate(train_ids)])
    write_pictures(folder, [f"test/{name}" for name in test_ids])


def write_aptos(folder: Path) -> None:
    places = ("train_images/{}.png", "test_images/{}.png")
    write_plain(folder, ("id_code", "diagnosis"), lambda place: [place % 5], [0], places=places)


def write_isic(folder: Path) -> None:
    ids = ([f"ISIC_{place:07d}" for place in range(TRAIN)], [f"ISIC_{place + 52060:07d}" for place in range(TEST)])
    header = ("image_name", "patient_id", "sex", "benign_malignant", "target")

    def truth(place: int) -> list[object]:
        return [f"IP_{place // 2}", "male", ("benign", "malignant")[isic_truth(place)], isic_truth(place)]

    places = ("jpeg/train/{}.jpg", "jpeg/test/{}.jpg")
    write_plain(folder, header, truth, [0], ids=ids, places=places, sample_header=("image_name", "target"))
    (folder / "test").mkdir()  # of DICOM files
    for name in ids[1]:
        (folder / "test" / f"{name}.dcm").write_bytes(b"")


def isic_truth(place: int) -> int:
    """Return 1 for every fifth patient."""
    return int(place // 2 % 5 == 0)


def write_cactus(folder: Path) -> None:
    ids = (name_images("0", TRAIN, ".jpg"), name_images("f", TEST, ".jpg"))
    places = ("train/{}", "test/{}")
    write_plain(folder, ("id", "has_cactus"), lambda place: [int(place % 3 > 0)], [0.5], ids=ids, places=places)


def write_histopathologic(folder: Path) -> None:
    write_plain(
        folder, ("id", "label"), lambda place: [int(place % 3 > 0)], [0],
        places=("train/{}.tif", "test/{}.tif"), table="train_labels.csv",
    )  # fmt: skip


def write_invasive(folder: Path) -> None:
    ids = ([str(place + 1) for place in range(TRAIN)], [str(place + 1) for place in range(TEST)])
    truth = lambda place: [int(place % 3 > 0)]  # noqa: E731
    write_plain(folder, ("name", "invasive"), truth, [0.5], ids=ids, table="train_labels.csv")


def write_dogs(folder: Path) -> None:
    write_table(folder / "sample_submission.csv", ("id", "label"), [(place + 1, 0.5) for place in range(TEST)])
    write_pictures(folder, [f"train/{('cat', 'dog')[place % 2]}.{place // 2}.jpg" for place in range(TRAIN)])
    write_pictures(folder, [f"test/{place + 1}.jpg" for place in range(TEST)])


BREEDS = ("affenpinscher", "afghan_hound", "boxer", "shih-tzu")


def write_breeds(folder: Path) -> None:
    header = ("id", *BREEDS)
    write_plain(
        folder, ("id", "breed"), lambda place: [BREEDS[place % 4]], [0.25] * 4,
        table="labels.csv", sample_header=header,
    )  # fmt: skip


LEAVES = ("Acer_Capillipes", "Acer_Circinatum", "Quercus_Alba")


def write_leaves(folder: Path) -> None:
    ids = ([str(2 * place + 1) for place in range(TRAIN)], [str(2 * place + 2) for place in range(TEST)])
    header = ("id", "species", "margin1", "shape1")

    def truth(place: int) -> list[object]:
        return [LEAVES[place % 3], place / 64, 0.000612]

    places = ("images/{}.jpg", "images/{}.jpg")
    write_plain(folder, header, truth, [1 / 3] * 3, ids=ids, places=places, sample_header=("id", *LEAVES))


VOTES = ("seizure_vote", "lpd_vote", "gpd_vote", "lrda_vote", "grda_vote", "other_vote")


def hms_truth(place: int) -> list[int]:
    """Return the votes of a recording."""
    return [(place + 2 * vote) % 4 if (place + vote) % 3 else 0 for vote in range(6)]


def write_hms(folder: Path) -> None:
    ids = ([str(1628180742 + place) for place in range(TRAIN)], [str(3911565283 + place) for place in range(TEST)])
    header = ("eeg_id", "patient_id", "expert_consensus", *VOTES)

    def truth(place: int) -> list[object]:
        return [place // 2, "Seizure", *hms_truth(place)]

    places = ("train_spectrograms/{}.png", "test_spectrograms/{}.png")
    write_plain(folder, header, truth, [1 / 6] * 6, ids=ids, places=places, sample_header=("eeg_id", *VOTES), hidden=5)


SPINE = ("patient_overall", "C1", "C2", "C3")


def spine_truth(place: int) -> list[int]:
    """Return whether the neck and each vertebra is fractured."""
    parts = [int((place + part) % 4 == 0) for part in range(3)]
    return [int(any(parts)), *parts]


def write_spine(folder: Path) -> None:
    train_ids = [f"1.2.826.0.1.{place}" for place in range(TRAIN)]
    test_ids = [f"1.2.826.0.2.{place}" for place in range(TEST)]
    write_table(
        folder / "train.csv",
        ("StudyInstanceUID", *SPINE),
        [(name, *spine_truth(place)) for place, name in enumerate(train_ids)],
    )
    sample = [(f"{name}_{part}", 0.5) for name in test_ids for part in SPINE]
    write_table(folder / "sample_submission.csv", ("row_id", "fractured"), sample)
    write_pictures(folder, [f"train_images/{name}.png" for name in train_ids])
    write_pictures(folder, [f"test_images/{name}.png" for name in test_ids])


def write_breasts(folder: Path) -> None:
    rows = [(2, place // 4, 462822612 + place, "LR"[place // 2 % 2], "CC", place % 2) for place in range(TRAIN)]
    write_table(folder / "train.csv", ("site_id", "patient_id", "image_id", "laterality", "view", "cancer"), rows)
    write_table(folder / "sample_submission.csv", ("prediction_id", "cancer"), [("0-L", 0), ("0-R", 0)])
    for _, patient, image, *_ in rows:
        (folder / "train_images" / str(patient)).mkdir(parents=True, exist_ok=True)
        (folder / "train_images" / str(patient) / f"{image}.dcm").write_bytes(b"")


def write_pets(folder: Path) -> None:
    header = ("Id", "Subject Focus", "Eyes", "Pawpularity")
    truth = lambda place: [0, 1, 1 + 37 * place % 100]  # noqa: E731
    write_plain(folder, header, truth, [99.24], sample_header=("Id", "Pawpularity"))


COMPETITIONS = {
    "imet-2019-fgvc6": Competition(write_imet_2019, ("--metric", "f2"), imet_truth),
    "imet-2020-fgvc7": Competition(write_imet_2020, ("--metric", "micro_f1", "--time-limit", "4h"), imet2020_truth),
    "cassava-leaf-disease-classification": Competition(
        write_cassava, ("--metric", "accuracy"), lambda place: place % 5
    ),
    "plant-pathology-2021-fgvc8": Competition(
        write_pathology_2021, ("--metric", "f1"), lambda place: PATHOLOGY[place % 7]
    ),
    "plant-pathology-2020-fgvc7": Competition(
        write_pathology_2020, ("--metric", "roc_auc"), lambda place: np.eye(4)[place % 4]
    ),
    "ranzcr-clip-catheter-line-classification": Competition(
        write_ranzcr, ("--metric", "roc_auc", "--group-by", "PatientID")
    ),
    "hotel-id-2021-fgvc8": Competition(write_hotels, ("--metric", "map@5"), lambda place: HOTELS[place % 6]),
    "whale-categorization-playground": Competition(write_whales, ("--metric", "map@5"), whale_truth),
    "inaturalist-2019-fgvc6": Competition(write_inaturalist, ("--metric", "accuracy"), lambda place: place % 8),
    "herbarium-2020-fgvc7": Competition(write_herbarium, ("--metric", "macro_f1"), lambda place: place % 6),
    "iwildcam-2019-fgvc6": Competition(write_iwildcam, ("--metric", "macro_f1"), lambda place: place % 4),
    "paddy-disease-classification": Competition(write_paddy, ("--metric", "accuracy"), lambda place: PADDY[place % 4]),
    "plant-seedlings-classification": Competition(write_seedlings, ("--metric", "micro_f1")),
    "aptos2019-blindness-detection": Competition(write_aptos, ("--metric", "kappa"), lambda place: place % 5),
    "siim-isic-melanoma-classification": Competition(
        write_isic, ("--metric", "roc_auc", "--group-by", "patient_id"), isic_truth
    ),
    "aerial-cactus-identification": Competition(
        write_cactus, ("--metric", "roc_auc"), lambda place: int(place % 3 > 0)
    ),
    "histopathologic-cancer-detection": Competition(
        write_histopathologic, ("--metric", "roc_auc"), lambda place: int(place % 3 > 0)
    ),
    "invasive-species-monitoring": Competition(
        write_invasive, ("--metric", "roc_auc"), lambda place: int(place % 3 > 0)
    ),
    "dogs-vs-cats-redux-kernels-edition": Competition(write_dogs, ("--metric", "log_loss", "--positive", "dog")),
    "dog-breed-identification": Competition(write_breeds, ("--metric", "log_loss"), lambda place: BREEDS[place % 4]),
    "leaf-classification": Competition(write_leaves, ("--metric", "log_loss"), lambda place: LEAVES[place % 3]),
    "hms-harmful-brain-activity-classification": Competition(
        write_hms,
        ("--metric", "kl_divergence", "--group-by", "patient_id"),
        hms_truth,
        "no: the images are spectrograms in Parquet files; the form is, if they were image files",
    ),
    "rsna-2022-cervical-spine-fracture-detection": Competition(
        write_spine,
        ("--metric", "log_loss"),
        spine_truth,
        "no: a case is many DICOM slices, and its log loss is weighted; the form is, if a case were an image file",
    ),
    "rsna-breast-cancer-detection": Competition(
        write_breasts,
        ("--metric", "roc_auc"),
        served="no: a row is a group of DICOM files, and its F1 is probabilistic",
    ),
    "petfinder-pawpularity-score": Competition(write_pets, (), lambda place: 1 + 37 * place % 100),
}
"""By the name in their URL; cactus, histopathologic and invasive are one row of the list of 23."""
