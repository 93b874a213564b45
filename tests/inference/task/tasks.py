"""Tasks and labels of competitions in each form, for the tests of inference/task."""

from inference.manifest.labels import Labels
from inference.manifest.task import Form, Images, Metric, Task

IMET = Task()
IMET_LABELS = Labels((0, 1, 5), ("c::a", "c::b", "t::c"), {"c": (0, 1), "t": (2,)})


def make_labels(*names: str, first: int = 0) -> Labels:
    """Return labels of one group with the ids `first`, `first` + 1, …"""
    return Labels(tuple(range(first, first + len(names))), names, {"labels": tuple(range(len(names)))})


ONE_NAME = Task(
    type="multiclass",
    id_column="file",
    images=Images("test/{id}"),
    submission=Form("list", "label_name", "species", top_k=1),
    metric=Metric("accuracy"),
)
RANKED = Task(
    type="multiclass",
    id_column="image",
    submission=Form("list", "label_id", "hotel_id", top_k=3),
    metric=Metric("map", k=3),
)
NAMES = Task(id_column="image", submission=Form("list", "label_name", "labels", separator="|"), metric=Metric(beta=1.0))
WIDE = Task(type="multiclass", submission=Form("wide", "probability", sum_to_one=True), metric=Metric("log_loss"))
BINARY = Task(type="binary", submission=Form("wide", "probability"), metric=Metric("roc_auc"))
LONG = Task(
    id_column="row_id",
    submission=Form("long", "probability", "fractured"),
    metric=Metric("log_loss"),
)
NUMBER = Task(
    type="regression",
    id_column="Id",
    submission=Form("wide", "number"),
    metric=Metric("rmse"),
    value_range=(1.0, 101.0),
)
