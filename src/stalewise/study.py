"""A study: what is trained, on which cluster, under which schedule, towards which target. TOML in and out."""

import ast
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stalewise.delays import AbstractDelay, Constant, Workers, files_of, parse_delay, rename_files, repeated
from stalewise.errors import InputError
from stalewise.protocol import (
    ON_STALE,
    POLICIES,
    Descent,
    Rules,
    Server,
    parse_compression,
    parse_rate_schedule,
    parse_weight,
    rules_of,
)

LARGEST = 1e100  # so that squares and products of what a study holds stay finite
MOST_WORKERS = 1_000_000


def _within(least: float, most: float, words: str) -> BeforeValidator:
    """Refuse numbers outside, and what pydantic would quietly turn into a number."""

    def check(value: Any) -> Any:
        if isinstance(value, (bool, str)):
            raise PydanticCustomError("number", "must be a number")
        if isinstance(value, (int, float)) and not least <= value <= most:
            raise PydanticCustomError("number", "must be {words}", {"words": words})
        return value

    return BeforeValidator(check)


def _one_of(names: Sequence[str]) -> BeforeValidator:
    """Refuse all but these names."""

    def check(value: Any) -> Any:
        if value not in names:
            *most, last = (repr(name) for name in names)
            raise PydanticCustomError("name", "must be {names}", {"names": f"{', '.join(most)} or {last}"})
        return value

    return BeforeValidator(check)


def _kind(value: Any) -> Any:
    """Refuse all but the built-in workloads and module:factory."""
    if value != QUADRATIC and value not in BUILT_IN and not _OWN.fullmatch(str(value)):
        names = ", ".join(repr(name) for name in (QUADRATIC, *BUILT_IN))
        near = difflib.get_close_matches(str(value), (QUADRATIC, *BUILT_IN), n=1)
        hint = f', did you mean "{near[0]}"?' if near else ""
        message = "must be {names}, or your own 'module:factory'{hint}"
        raise PydanticCustomError("name", message, {"names": names, "hint": hint})
    return value


Finite = Annotated[float, _within(-LARGEST, LARGEST, f"finite, of size {LARGEST:g} at most")]
Positive = Annotated[float, _within(1 / LARGEST, LARGEST, f"positive, {1 / LARGEST:g} to {LARGEST:g}")]
NonNegative = Annotated[float, _within(0, LARGEST, f"0 or more, {LARGEST:g} at most")]
Count = Annotated[int, _within(1, 1 << 31, f"1 or more, {1 << 31:,} at most")]

QUADRATIC = "quadratic"
FOR_NETWORKS = ("optimizer", "optimizer_options", "learning_rate_schedule", "compression", "delay_compensation")
BUILT_IN = {
    "digits-mlp": "stalewise.workloads.digits:digits_mlp",
    "mnist-cnn": "stalewise.workloads.images:mnist_cnn",
    "char-transformer": "stalewise.workloads.characters:char_transformer",
}
OPTIMIZERS = (
    "SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD",
)  # fmt: skip
_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_UNION_BRANCH = re.compile(r"(constrained-)?(float|int|str)|.*\[.*")  # pydantic names the branch of a union it tried


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spectrum(NamedTuple):
    """Modes of a quadratic: eigenvalues, variance of gradient noise, its growth with the loss, start; each (modes,)."""

    eigenvalues: np.ndarray
    noise: np.ndarray
    noise_growth: np.ndarray
    start: np.ndarray

    @property
    def noisy(self) -> bool:
        """Whether any gradient is."""
        return bool(self.noise.any() or self.noise_growth.any())


class Workload(_Section):
    """What is trained.

    For ``quadratic`` the loss is 1/2 sum_i lambda_i x_i^2 and everything about it stands here. For a network the
    model, data and batch come with its ``kind``.
    """

    kind: Annotated[str, BeforeValidator(_kind)] = QUADRATIC
    data: str | None = Field(default=None, description="file or folder of a network's data")
    options: dict[str, Any] = Field(default={}, description="arguments of a network's factory")
    path: str | None = Field(default=None, description="folder of your own module, the study's unless given")
    landscape: str | None = Field(default=None, description="what `stalewise measure` wrote, for a network's curvature")
    eigenvalues: list[Positive] | None = Field(default=None, description="Hessian eigenvalues")
    gradient_noise: NonNegative | list[NonNegative] = Field(
        default=0.0, description="variance of one stochastic gradient along each eigenvector"
    )
    noise_growth: NonNegative | list[NonNegative] = Field(
        default=0.0,
        description="what a unit of loss, where a gradient is computed, adds to its variance along each eigenvector",
    )
    start: Finite | list[Finite] = Field(default=1.0, description="initial distance along each eigenvector")
    _folder: Path = PrivateAttr(default=Path("."))

    def model_post_init(self, context: Any) -> None:
        """Remember where relative file names are looked up."""
        if context:
            self._folder = Path(context.get("folder", "."))

    @property
    def folder(self) -> Path:
        """Where your own module is looked up first."""
        return (self._folder / (self.path or "")).resolve()

    @property
    def data_path(self) -> Path | None:
        """Where a network's data are, if the study says."""
        return None if self.data is None else (self._folder / self.data).resolve()

    @property
    def landscape_path(self) -> Path | None:
        """Where a network's measured landscape is, if the study says."""
        return None if self.landscape is None else (self._folder / self.landscape).resolve()

    @property
    def is_quadratic(self) -> bool:
        """Whether the whole landscape stands in the study."""
        return self.kind == QUADRATIC

    @model_validator(mode="after")
    def _shapes(self) -> "Workload":
        if not self.is_quadratic:
            given = sorted(self.model_fields_set & {"eigenvalues", "gradient_noise", "noise_growth", "start"})
            if given:
                raise ValueError(f'{given[0]} belongs to kind = "quadratic"; {self.kind} brings its own landscape')
            return self
        given = sorted(self.model_fields_set & {"data", "options", "path", "landscape"})
        if given:
            raise ValueError(f"{given[0]} belongs to networks; a quadratic stands in the study")
        if not self.eigenvalues:
            raise ValueError("eigenvalues is missing: a quadratic needs at least one, for example [1.0, 0.1]")
        for name in ("gradient_noise", "noise_growth", "start"):
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != len(self.eigenvalues):
                raise ValueError(f"{name} has {len(value)} values for {len(self.eigenvalues)} eigenvalues")
        return self

    def modes(self) -> Spectrum:
        """What a quadratic is made of."""
        eigenvalues = np.array(self.eigenvalues, float)
        rest = (np.asarray(value, float) for value in (self.gradient_noise, self.noise_growth, self.start))
        return Spectrum(eigenvalues, *(np.broadcast_to(value, eigenvalues.shape).copy() for value in rest))


def _law_text(text: str, info: ValidationInfo) -> str:
    try:
        parse_delay(text, folder=(info.context or {}).get("folder", "."))
    except InputError as error:
        raise ValueError(str(error)) from None
    return text


LawText = Annotated[str, AfterValidator(_law_text)]


class Group(_Section):
    """Workers of one kind; laws that are left out are the cluster's."""

    count: Annotated[int, _within(1, MOST_WORKERS, f"1 or more, {MOST_WORKERS:,} at most")]
    compute: LawText | None = None
    download: LawText | None = None
    upload: LawText | None = None
    sample_time: NonNegative | None = None
    device: Literal["cpu", "cuda"] | None = None


class Cluster(_Section):
    """Who computes, and how long one gradient takes: download + compute + upload, independent [s].

    Every sample of a gradient adds ``sample_time`` to its compute. Workers are alike unless there are groups; those are
    numbered, and become active, in the order of the groups.
    """

    workers: Annotated[int, _within(1, MOST_WORKERS, f"1 or more, {MOST_WORKERS:,} at most")]
    compute: LawText | None = Field(default=None, description="law of the computing time of one gradient")
    download: LawText = "constant(0)"
    upload: LawText = "constant(0)"
    service: LawText = Field(
        default="constant(0)",
        description="shared link or server, one gradient at a time; of producer-consumer, one step of the trainer",
    )
    sample_time: NonNegative = Field(default=0.0, description="what each sample of a gradient adds to compute [s]")
    group: list[Group] | None = None
    start: Literal["together", "staggered"] = "together"
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where `train` computes gradients")
    _folder: Path = PrivateAttr(default=Path("."))
    _law: AbstractDelay | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _count(cls, data: Any) -> Any:
        """Workers are those of the groups, unless said."""
        if isinstance(data, dict) and "workers" not in data and isinstance(data.get("group"), list):
            counts = [one.get("count") for one in data["group"] if isinstance(one, dict)]
            known = [count for count in counts if isinstance(count, int)]
            if len(known) == len(data["group"]) > 0:
                return {**data, "workers": sum(known)}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Cluster":
        for place, one in enumerate(self.group or ()):
            if one.compute is None and self.compute is None:
                raise ValueError(f"compute is missing in group {place}, and there is none for the whole cluster")
        if self.group is None and self.compute is None:
            raise ValueError("compute is missing: the law of the computing time of one gradient")
        if self.group is not None and sum(one.count for one in self.group) != self.workers:
            raise ValueError(
                f"workers must be the sum of the groups' counts, {sum(one.count for one in self.group)}, "
                f"got {self.workers}; or leave it out"
            )
        return self

    def model_post_init(self, context: Any) -> None:
        """Remember where relative file names are looked up."""
        if context:
            self._folder = Path(context.get("folder", "."))

    def _texts(self) -> list[tuple[int, list[str]]]:
        """Workers and the texts of their parts, group by group."""
        own = [self.compute, self.download, self.upload]
        if self.group is None:
            return [(self.workers, [text or "" for text in own])]
        theirs = [(one.count, [one.compute, one.download, one.upload]) for one in self.group]
        return [(n, [text or other or "" for text, other in zip(texts, own, strict=True)]) for n, texts in theirs]

    def _sample_times(self) -> list[float]:
        """What a sample costs, group by group [s]."""
        own = self.sample_time
        return [own if one.sample_time is None else one.sample_time for one in self.group or ()] or [own]

    @property
    def samples_cost_time(self) -> bool:
        """Whether a larger batch takes longer, on some workers at least."""
        return self._law is None and any(self._sample_times())

    @property
    def sources(self) -> dict[str, Path]:
        """Trace files that the laws name, and where each is."""
        texts = [self.service, *(text for _, parts in self._texts() for text in parts)]
        return {name: self._folder / name for text in texts for name in files_of(text)}

    def all_workers(self, *, batch_size: int, local_steps: int = 1) -> Workers:
        """Workers and the law of a cycle of each [s]: from reading the parameters to handing the gradient over."""
        if self._law is not None:
            return Workers(((self.workers, self._law),))
        groups = []
        for (count, (compute, *rest)), sample in zip(self._texts(), self._sample_times(), strict=True):
            law = repeated(parse_delay(compute, folder=self._folder), local_steps)
            if sample > 0:
                law = law + Constant(local_steps * batch_size * sample)
            for text in rest:
                law = law + parse_delay(text, folder=self._folder)
            if law.mean <= 0:
                raise InputError(f"cluster.compute must take time, got {compute!r} with a mean of 0 seconds")
            if not law.mean <= LARGEST:
                raise InputError(
                    f"cluster.compute must take at most {LARGEST:g} s on average, got {compute!r}"
                    + (f" with sample_time = {sample:g} for {batch_size} samples" if sample > 0 else "")
                )
            groups.append((count, law))
        return Workers(tuple(groups))

    def service_law(self) -> AbstractDelay:
        """Law of the time one gradient takes on the shared link [s]."""
        return parse_delay(self.service, folder=self._folder)


class Schedule(_Section):
    """How it is trained. What is left out, `plan` chooses; `predict`, `simulate` and `train` need a learning rate."""

    policy: Annotated[str, _one_of(POLICIES)] | None = None
    active_workers: Count | None = None
    learning_rate: Positive | None = None
    momentum: Annotated[float, _within(0, 0.999999, "0 or more and below 1, 0.999999 at most")] = Field(
        default=0.0, description="beta of the server's steps, in the form of torch.optim.SGD"
    )
    learning_rate_schedule: str = Field(
        default="constant", description="how the learning rate changes over updates, such as cosine(2000); networks"
    )
    optimizer: Annotated[str, _one_of(OPTIMIZERS)] = Field(
        default="SGD", description="class of torch.optim that takes the server's steps; networks"
    )
    optimizer_options: dict[str, Any] = Field(default={}, description="its other arguments, such as betas")
    nesterov: bool = Field(default=False, description="whether momentum is Nesterov's")
    weight_decay: NonNegative = Field(default=0.0, description="times the parameters, added to every step's gradient")
    max_staleness: Annotated[int, _within(0, 1 << 31, f"0 or more, {1 << 31:,} at most")] | None = Field(
        default=None, description="in updates"
    )
    on_stale: Annotated[str, _one_of(ON_STALE)] = ON_STALE[0]
    group: Count = Field(default=1, description="K, gradients averaged in one step, for the policies that have one")
    staleness_weight: str = Field(
        default="constant", description="what a stale gradient is multiplied by, such as polynomial(0.5)"
    )
    delay_compensation: NonNegative = Field(default=0.0, description="lambda of DC-ASGD, for networks")
    local_steps: Count = Field(default=1, description="steps that a worker takes by itself for one gradient")
    compression: str = Field(default="none", description="what is sent of a gradient, such as top-k(0.01); networks")
    trigger: NonNegative = Field(default=0.0, description="push only if the gradient's norm exceeds it")
    on_quiet: Literal["refresh", "keep"] = "refresh"
    batch_size: Count | None = Field(
        default=None, description="samples a gradient; default 1 for quadratic, 32 for networks"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Schedule":
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs momentum above 0, for example momentum = 0.9")
        if self.optimizer != "SGD" and self.momentum > 0.0:
            own = f"write {self.optimizer}'s into optimizer_options"
            raise ValueError(f"momentum is SGD's, got {self.momentum:g}; {own}")
        wrong = self.optimizer_options.keys() & {"params", "lr", "nesterov", "weight_decay"}
        if wrong:
            raise ValueError(
                f"optimizer_options must not have {min(wrong)!r}: the schedule has learning_rate, nesterov and "
                "weight_decay of its own"
            )
        try:
            parse_rate_schedule(self.learning_rate_schedule)
            parse_compression(self.compression)
        except InputError as error:
            raise ValueError(str(error)) from None
        if self.policy is not None:
            try:
                rules_of(
                    self.policy, MOST_WORKERS, group=self.group, max_staleness=self.max_staleness,
                    on_stale=self.on_stale, trigger=self.trigger, on_quiet=self.on_quiet,
                    weight=parse_weight(self.staleness_weight),
                )  # fmt: skip
            except InputError as error:
                raise ValueError(str(error)) from None
        return self


class Target(_Section):
    """Where training should end up."""

    loss: Positive = Field(description="excess loss for quadratic, training loss otherwise")
    time_limit: Positive | None = Field(default=None, description="stop here at the latest [s]")


class Study(_Section):
    """One question: workload, cluster, schedule, target."""

    workload: Workload
    cluster: Cluster
    schedule: Schedule = Schedule()
    target: Target

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        active = self.schedule.active_workers
        if active is not None and active > self.cluster.workers:
            raise ValueError(
                f"schedule.active_workers must be at most cluster.workers = {self.cluster.workers}, got {active}"
            )
        if self.workload.is_quadratic:
            for name in FOR_NETWORKS[:-1]:
                value = getattr(self.schedule, name)
                if value != Schedule.model_fields[name].default:
                    raise ValueError(f"schedule.{name} is for networks, got {value!r}")
        if self.workload.is_quadratic and self.schedule.delay_compensation > 0:
            raise ValueError(
                "schedule.delay_compensation is for networks: it approximates the curvature that a quadratic states; "
                f"got {self.schedule.delay_compensation:g}"
            )
        if self.schedule.local_steps > 1 and self.workload.is_quadratic and self.workload.modes().noise_growth.any():
            raise ValueError(
                f"workload.noise_growth is for gradients of one step, got schedule.local_steps = "
                f"{self.schedule.local_steps}"
            )
        if self.schedule.policy in ("k-sync", "k-async") and self.schedule.group > self.active_workers:
            raise ValueError(
                f"schedule.group must be at most the {self.active_workers} active workers under policy "
                f"{self.schedule.policy!r}, got {self.schedule.group}"
            )
        return self

    @property
    def active_workers(self) -> int:
        """Workers that take part: all of them unless the schedule says fewer."""
        return self.schedule.active_workers or self.cluster.workers

    @property
    def batch_size(self) -> int:
        """Samples behind one gradient."""
        return self.schedule.batch_size or (1 if self.workload.is_quadratic else 32)

    @property
    def learning_rate(self) -> float:
        """The schedule's learning rate; an error if it has none."""
        if self.schedule.learning_rate is None:
            raise InputError("schedule.learning_rate is missing: give one, or let `stalewise plan` choose it")
        return self.schedule.learning_rate

    @property
    def policy(self) -> str:
        """The schedule's policy; an error if it has none."""
        if self.schedule.policy is None:
            raise InputError(
                f"schedule.policy is missing: give one of {', '.join(POLICIES)}, or let `stalewise plan` choose"
            )
        return self.schedule.policy

    def workers(self) -> Workers:
        """Active workers and the law of a cycle of each, without the shared link."""
        cluster, schedule = self.cluster, self.schedule
        return cluster.all_workers(batch_size=self.batch_size, local_steps=schedule.local_steps).first(
            self.active_workers
        )

    def devices(self) -> list[tuple[str, list[int]]]:
        """Devices that active workers compute on, and which workers do on each."""
        own = self.cluster.device
        groups = [(one.count, one.device or own) for one in self.cluster.group or ()] or [(self.cluster.workers, own)]
        all_of = [device for count, device in groups for _ in range(count)][: self.active_workers]
        return [(name, [i for i, device in enumerate(all_of) if device == name]) for name in dict.fromkeys(all_of)]

    def pull(self, curvature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""What one gradient of H local steps sends along eigenvectors of these curvatures, each (modes,).

        A worker that steps H times from x with learning rate eta moves by :math:`-\eta\,q\,x` plus noise, and sends
        the move over -eta in place of a gradient:

        .. math:: q = \frac{1 - (1 - \eta\lambda)^H}{\eta}, \qquad
                  \frac{\sigma_H^2}{\sigma^2} = \sum_{j<H} (1 - \eta\lambda)^{2j}.

        Returns:
            q, in place of the curvature, and the ratio of noise variances; the curvature and 1 for a single step.
        """
        steps = self.schedule.local_steps
        if steps == 1:
            return curvature, np.ones_like(curvature)
        kept = 1.0 - self.learning_rate * curvature
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            pull = (1.0 - kept**steps) / self.learning_rate
            noise = np.where(np.abs(kept) == 1.0, float(steps), (1.0 - kept ** (2 * steps)) / (1.0 - kept**2))
        return np.clip(pull, -LARGEST, LARGEST), np.minimum(noise, LARGEST)

    def descent(self) -> Descent:
        """How a step moves the parameters."""
        schedule = self.schedule
        return Descent(self.learning_rate, schedule.momentum, schedule.nesterov, schedule.weight_decay)

    def delay(self) -> AbstractDelay:
        """Law of a cycle of every active worker [s]; an error where they are unlike."""
        law = self.workers().law
        if law is None:
            raise InputError("cluster.group: there is no formula for workers that are unlike; use simulate")
        return law

    def rules(self) -> Rules:
        """What the schedule's server does with gradients."""
        schedule = self.schedule
        return rules_of(
            self.policy, self.active_workers, group=schedule.group, max_staleness=schedule.max_staleness,
            on_stale=schedule.on_stale, trigger=schedule.trigger, on_quiet=schedule.on_quiet,
            weight=parse_weight(schedule.staleness_weight),
        )  # fmt: skip

    def server(self) -> Server:
        """A fresh server for this schedule."""
        return Server(self.active_workers, self.rules())

    def with_schedule(self, **changes: Any) -> "Study":
        """The same study under a changed schedule; a value of None takes a field out."""
        return self._with("schedule", changes)

    def with_workload(self, **changes: Any) -> "Study":
        """The same study of a changed workload."""
        return self._with("workload", changes)

    def with_target(self, **changes: Any) -> "Study":
        """The same study with another target."""
        return self._with("target", changes)

    def with_cluster(self, **changes: Any) -> "Study":
        """The same study on a changed cluster."""
        return self._with("cluster", changes)

    def with_fields(self, values: Mapping[str, Any]) -> "Study":
        """The same study with fields named ``section.field`` changed all at once; None takes a field out."""
        data = self.as_dict()
        for name, value in values.items():
            section, _, field = name.partition(".")
            data[section] = {**data.get(section, {}), field: value}
        data = {name: {k: v for k, v in section.items() if v is not None} for name, section in data.items()}
        changed = make_study(data, folder=self.cluster._folder)
        return changed if self.cluster._law is None else changed.with_delay(self.cluster._law)

    def with_sources(self, names: dict[str, str], folder: Path) -> "Study":
        """The same study in another folder, its trace files renamed."""
        data = self.as_dict()
        for section in (data["cluster"], *data["cluster"].get("group", ())):
            for part in ("compute", "download", "upload", "service"):
                if part in section:
                    section[part] = rename_files(section[part], names)
        return make_study(data, folder=folder)

    def with_places(self) -> "Study":
        """The same study with a network's data, module and landscape named so that they are found from any folder."""
        workload = self.workload
        if workload.is_quadratic:
            return self
        data = None if workload.data_path is None else str(workload.data_path)
        path = None if workload.kind in BUILT_IN else str(workload.folder)
        landscape = None if workload.landscape_path is None else str(workload.landscape_path)
        return self._with("workload", {"data": data, "path": path, "landscape": landscape})

    def with_delay(self, law: AbstractDelay) -> "Study":
        """The same study with the law of a cycle given as an object, in place of ``cluster``'s texts.

        It is kept by `with_schedule` and `with_cluster`, and does not show in `as_dict` or `to_toml`.
        """
        cluster = self.cluster.model_copy()
        cluster._law = law
        return self.model_copy(update={"cluster": cluster})

    def with_cycles_held(self) -> "Study":
        """The same study, whose cycles a change of the batch size leaves as they are: what it costs is in `compute`."""
        if not self.cluster.samples_cost_time:
            return self
        data = self.as_dict()["cluster"]
        own = data.pop("sample_time", 0.0)
        for one in data.get("group", [data]):
            sample, compute = one.pop("sample_time", own), one.get("compute", data.get("compute"))
            if sample > 0:
                one["compute"] = f"{compute} + {Constant(self.batch_size * sample)}"
        return self._with("cluster", {"sample_time": None, **data})

    def _with(self, section: str, changes: dict[str, Any]) -> "Study":
        data = self.as_dict()
        data[section] = {k: v for k, v in {**data.get(section, {}), **changes}.items() if v is not None}
        changed = make_study(data, folder=self.cluster._folder)
        return changed if self.cluster._law is None else changed.with_delay(self.cluster._law)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without what was left out."""
        return self.model_dump(exclude_none=True, exclude_unset=True)

    def to_toml(self) -> str:
        """The study as a TOML document that `load_study` reads back."""
        return tomli_w.dumps(self.as_dict())


def make_study(data: dict[str, Any], *, folder: str | Path = ".") -> Study:
    """Build a study from nested plain values; relative file names are looked up in ``folder``.

    Raises:
        InputError: A field is wrong, missing or unknown; one line that names it, its value and what is allowed.
    """
    try:
        return Study.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        raise InputError(_one_line(error)) from None


def load_study(path: str | Path, *, overrides: Sequence[str] = ()) -> Study:
    """Read a study from a TOML file.

    Args:
        path: The file; relative names of trace files in it are looked up beside it.
        overrides: Texts such as ``"schedule.learning_rate=0.1"``, each replacing one field.

    Raises:
        InputError: The file or a field is wrong; one line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"study file: {str(path)!r} does not exist") from None
    except UnicodeDecodeError:
        raise InputError(f"study file: {str(path)!r} is not a text file") from None
    except OSError as error:
        raise InputError(f"study file: cannot read {str(path)!r}: {error.strerror}") from None
    return parse_study(text, folder=path.parent, overrides=overrides, source=path.name)


def parse_study(text: str, *, folder: str | Path = ".", overrides: Sequence[str] = (), source: str = "study") -> Study:
    """Read a study from TOML text. See `load_study`."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: not valid TOML: {error}") from None
    for override in overrides:
        _override(data, override)
    return make_study(data, folder=folder)


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) != 2 or not all(parts):
        raise InputError(f"--set: write section.field=value, for example schedule.learning_rate=0.1; got {text!r}")
    section = data.setdefault(parts[0], {})
    if not isinstance(section, dict):
        raise InputError(f"--set: {parts[0]!r} is not a section of the study, got {text!r}")
    section[parts[1]] = _value(value.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    first = max((e for e in error.errors() if e["loc"][:2] == first["loc"][:2]), key=lambda e: len(e["loc"]))
    if first["type"] == "missing":  # what is misspelt beside it explains it
        beside = (e for e in error.errors() if e["type"] == "extra_forbidden" and e["loc"][:-1] == first["loc"][:-1])
        first = next(beside, first)
    place = ".".join(str(part) for part in first["loc"] if not _UNION_BRANCH.fullmatch(str(part)))
    kind, value = first["type"], first.get("input")
    if kind == "extra_forbidden":
        return f"{place} is not a known field{_near(first['loc'])}"
    if kind == "missing":
        return f"{place} is missing"
    message = str(first.get("ctx", {}).get("error", "")) or first["msg"].replace("Input should be", "must be")
    if kind == "value_error":
        return f"{place}: {message}" if place else message
    if kind == "int_from_float" or kind.endswith("_parsing"):
        message = message.partition(",")[0]
    return f"{place or 'study'} {message}, got {value!r}"


def _near(location: tuple[int | str, ...]) -> str:
    unknown = str(location[-1])
    sections = {"workload": Workload, "cluster": Cluster, "schedule": Schedule, "target": Target}
    model = sections.get(str(location[0])) if len(location) > 1 else Study
    model = Group if location[:2] == ("cluster", "group") and len(location) > 2 else model
    if model is None:
        return ""
    names = list(model.model_fields)
    near = difflib.get_close_matches(unknown, names, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(names)}"
