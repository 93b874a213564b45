"""The form of the submission and the metric, from the sample, the truth and the options."""

import re
from collections.abc import Sequence

from inference.basics.errors import LabelsError, OptionError
from inference.manifest.task import Average, Content, Form, Metric, MetricName, Task
from inference.manifest.task_checks import list_metrics
from packing.init.answers import Answers
from packing.init.read.cells import find_separator, split_cell
from packing.init.read.sample import SampleSheet
from packing.init.read.truth import Truth, find_endings, split_row
from packing.init.settings import Settings

SPELLINGS = "f2, f1, f_beta=BETA, micro_f1, macro_f1, accuracy, kappa, map@K, roc_auc, log_loss, kl_divergence, rmse"
PLAIN: tuple[MetricName, ...] = ("accuracy", "kappa", "roc_auc", "log_loss", "kl_divergence", "rmse")
F_BETA = re.compile(r"(?:(micro|macro)_)?(?:f_beta=|f)(\d+(?:\.\d+)?)")
NORMALISED = ("log_loss", "kl_divergence")


def parse_metric(text: str) -> Metric:
    """Return the metric of a spelling such as macro_f1, f_beta=0.5, map@5 or log_loss. Raises OptionError."""
    f_beta = F_BETA.fullmatch(text)
    if f_beta and 0.01 <= float(f_beta[2]) <= 100:
        average: Average = "micro" if f_beta[1] == "micro" else "macro" if f_beta[1] else "samples"
        return Metric("f_beta", float(f_beta[2]), average)
    mean_precision = re.fullmatch(r"map@([1-9]\d{0,2})", text)
    if mean_precision:
        return Metric("map", k=int(mean_precision[1]))
    for name in PLAIN:
        if text == name:
            return Metric(name)
    raise OptionError(f"--metric: found {text!r}; wanted one of: {SPELLINGS}")


def choose_form(answers: Answers, truth: Truth, sample: SampleSheet, settings: Settings, metric: Metric | None) -> Form:
    """Return the form of the submission: that of the sample, for answers of this type.

    Raises OptionError: --layout or --top-k do not suit; LabelsError: a name contains the separator.
    """
    if answers.type == "binary":
        form = Form("wide", "probability", sample.columns[0])
    elif answers.type == "regression":
        form = Form("wide", "number", sample.columns[0])
    elif len(sample.columns) > 1:
        normalised = answers.type == "multiclass" and metric is not None and metric.name in NORMALISED
        form = Form("wide", "probability", sample.columns[0], sum_to_one=normalised)
    elif len(truth.columns) > 1 and find_endings(sample, truth.columns):
        found = split_row(sample.ids[0], sorted(truth.columns, key=len, reverse=True))
        form = Form("long", "probability", sample.columns[0], row=f"{{id}}{found[0] if found else ''}{{label}}")
    else:
        form = choose_list(answers, sample, settings, metric)
    if settings.layout not in (None, form.layout):
        raise OptionError(
            f"--layout: found {settings.layout}; wanted {form.layout} for {answers.type} labels and the "
            f"{len(sample.columns)} columns of answers in {sample.path}"
        )
    return form


def choose_list(answers: Answers, sample: SampleSheet, settings: Settings, metric: Metric | None) -> Form:
    """Return the form of a cell of labels: what stands in it, the separator, and how many labels are ranked."""
    ids = frozenset(map(str, answers.label_ids))
    words = {word for cell in sample.cells for word in split_cell(cell, settings.read_separator(lambda: " "))}
    by_id = answers.whole
    if words and words <= ids and not words & set(answers.names):
        by_id = True
    elif sample.cells and set(sample.cells) <= set(answers.names) - ids:
        by_id = False
    content: Content = "label_id" if by_id else "label_name"
    known = ids if by_id else frozenset(answers.names)
    separator = settings.read_separator(lambda: find_separator(sample.cells, known, sample.path))
    most = max((len(split_cell(cell, separator)) for cell in sample.cells), default=1)
    ranked = metric.k if metric is not None and metric.name == "map" else None
    top_k = settings.top_k
    if top_k is None:
        top_k = ranked if answers.type == "multilabel" or (most == 1 and ranked) else most
        top_k = top_k if ranked or answers.type == "multiclass" else None
    form = Form("list", content, sample.columns[0], separator or " ", top_k)
    if not by_id and top_k != 1:
        for name in answers.names:
            if form.separator in name:
                raise LabelsError(
                    f"label {name!r} contains {form.separator!r}, which separates the labels of a submission; give "
                    "another --separator, or --top-k 1 for one label per image"
                )
    return form


def choose_metric(task: Task, given: Metric | None, text: str | None, labels: int) -> Metric:
    """Return the metric of a task: the given one, or the only one that suits.

    `labels`: their number. Raises OptionError naming those that suit: none is given, or it does not suit.
    """
    suited = list_metrics(task)
    choices = spell_metrics(task, suited)
    if given is None and len(suited) == 1 and suited[0] != "f_beta":
        return Metric(suited[0], k=task.submission.top_k or Metric.k)
    found = "cannot be known from tables" if given is None else f"found {text!r}"
    averaged = given is not None and given.name == "f_beta" and given.average == "samples"
    wrong_k = given is not None and given.name == "map" and given.k != task.submission.top_k
    if given is None or given.name not in suited or (averaged and task.type == "multiclass") or wrong_k:
        raise OptionError(f"--metric: {found}; wanted one of: {', '.join(choices)} for {describe_task(task, labels)}")
    return given


def spell_metrics(task: Task, names: Sequence[MetricName]) -> list[str]:
    """Return the metrics as --metric spells them."""
    f_beta = (
        ("macro_f1", "micro_f1") if task.type == "multiclass" else ("f2", "f1", "f_beta=BETA", "micro_f1", "macro_f1")
    )
    several: dict[str, tuple[str, ...]] = {"f_beta": f_beta, "map": (f"map@{task.submission.top_k}",)}
    return [spelling for name in names for spelling in several.get(name, (name,))]


def describe_task(task: Task, labels: int) -> str:
    """Describe the answers, as in 'one label of 5' or 'a probability for each of 11 labels'."""
    form = task.submission
    if task.type == "regression":
        return "a number"
    if task.type == "binary":
        return "one probability"
    if not form.holds_labels:
        exclusive = ", of which one is true" if task.type == "multiclass" else ""
        return f"a probability for each of {labels} labels{exclusive}"
    if form.top_k == 1:
        return f"one label of {labels}"
    return f"the {form.top_k} best labels of {labels}" if form.top_k else f"several labels of {labels}"
