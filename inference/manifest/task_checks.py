"""Checks across the keys of `task`: which form, metric and decision suit which type of labels."""

from collections.abc import Collection, Mapping

from inference.basics.errors import ManifestError
from inference.manifest.schema import refuse
from inference.manifest.task import ID, PLACEHOLDER, Content, MetricName, Task, TaskType
from inference.manifest.values import DecisionRule

CONTENTS: Mapping[TaskType, tuple[Content, ...]] = {
    "multilabel": ("label_id", "label_name", "probability"),
    "multiclass": ("label_id", "label_name", "probability"),
    "binary": ("probability",),
    "regression": ("number",),
}
# Metrics of answers that are labels, and of those that are numbers.
LABEL_METRICS: Mapping[TaskType, tuple[MetricName, ...]] = {
    "multilabel": ("f_beta", "map"),
    "multiclass": ("accuracy", "f_beta", "kappa", "map"),
}
NUMBER_METRICS: Mapping[TaskType, tuple[MetricName, ...]] = {
    "multilabel": ("roc_auc", "log_loss"),
    "multiclass": ("log_loss", "roc_auc", "kl_divergence"),
    "binary": ("roc_auc", "log_loss"),
    "regression": ("rmse",),
}


def check_task(task: Task, groups: Collection[str]) -> None:
    """Check that the keys of a task suit one another. Raises ManifestError naming the key."""
    form = task.submission
    if task.type != "multilabel" and len(groups) != 1:
        raise refuse("labels.groups", list(groups), f"one group, as `task.type` is {task.type}")
    if form.content not in CONTENTS[task.type]:
        wanted = f"{' or '.join(map(repr, CONTENTS[task.type]))} for {task.type}"
        raise refuse("task.submission.content", form.content, wanted)
    if form.holds_labels != (form.layout == "list"):
        wanted = "'list' for labels" if form.holds_labels else "'wide' or 'long' for numbers"
        raise refuse("task.submission.layout", form.layout, wanted)
    if form.top_k is not None and form.layout != "list":
        raise refuse("task.submission.top_k", form.top_k, "null, as only a `list` is ranked")
    if form.top_k is None and form.layout == "list" and task.type == "multiclass":
        raise refuse("task.submission.top_k", None, "the number of labels per image, 1 for the best alone")
    if form.sum_to_one and not (task.type == "multiclass" and form.layout == "wide"):
        raise refuse("task.submission.sum_to_one", True, "false: only the columns of `multiclass` add up to 1")
    check_metric(task)
    columns = {found[1] for found in PLACEHOLDER.finditer(task.images.path)} - {ID}
    if columns and task.images.table is None:
        found = ", ".join(f"{{{column}}}" for column in sorted(columns))
        raise ManifestError(
            f"`task.images.path`: found {found}; wanted {{id}}, or a table with it in `task.images.table`"
        )


def check_metric(task: Task) -> None:
    """Check that the metric suits the labels and the form. Raises ManifestError naming the key."""
    metric, form = task.metric, task.submission
    suited = list_metrics(task)
    if metric.name not in suited:
        raise refuse("task.metric.name", metric.name, f"{' or '.join(map(repr, suited))} for {describe_answers(task)}")
    if metric.name == "f_beta" and task.type == "multiclass" and metric.average == "samples":
        raise refuse("task.metric.average", metric.average, "'micro' or 'macro' where an image has one label")
    if metric.name == "map" and form.top_k != metric.k:
        raise refuse("task.metric.k", metric.k, f"`task.submission.top_k`, {form.top_k}")


def list_metrics(task: Task) -> tuple[MetricName, ...]:
    """Return the metrics that suit the labels and the form of a task; the first is the most usual."""
    form = task.submission
    if not form.holds_labels:
        return NUMBER_METRICS[task.type]
    ranked = (form.top_k or 1) > 1 or (form.top_k == 1 and task.type == "multilabel")
    names = LABEL_METRICS[task.type]
    if ranked:  # a list of several has a best label too
        return ("map", "accuracy") if task.type == "multiclass" else ("map",)
    return tuple(name for name in names if name != "map" or form.top_k)


def list_decision_rules(task: Task) -> tuple[DecisionRule, ...]:
    """Return the decision rules that make answers in the form of a task."""
    form = task.submission
    if task.selects_labels:
        return ("thresholds", "expected_f")
    if form.holds_labels:
        return ("ranked", "cut_points") if form.top_k == 1 else ("ranked",)
    return ("number",) if form.content == "number" else ("probabilities",)


def describe_answers(task: Task) -> str:
    """Describe the answers of a task, as in 'multilabel answers in a list of label_id'."""
    form = task.submission
    ranked = "" if form.top_k is None else f" of {form.top_k}"
    return f"{task.type} answers in the layout {form.layout}{ranked} with {form.content}"
