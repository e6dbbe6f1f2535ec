"""What was measured of a landscape, as a file: strict JSON, checked when read."""

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stalewise.errors import InputError
from stalewise.trajectory import load_json, to_json

FORMAT, VERSION = "stalewise landscape", 1
MOST = 10_000  # eigenvalues, points or places that a file may hold

Finite = Annotated[float, Field(strict=True, ge=-1e100, le=1e100, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Error = Annotated[float, Field(strict=True, ge=0, le=1e100, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=1 << 53)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Part):
    """A number with its standard error."""

    value: Finite
    standard_error: Error

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.standard_error:.2g}"


class Eigenvalue(Estimate):
    """An eigenvalue over the samples it was measured on.

    Attributes:
        residual: An eigenvalue of that matrix lies this close, for certain but for rounding.
        standard_error: How far that of other as many samples would be off, from batches' Rayleigh quotients.
    """

    residual: Error


class Density(_Part):
    """Spectral density of the Hessian: eigenvalues, ascending, and the share of all at each; shares add up to 1.

    Attributes:
        trace: Sum of all eigenvalues.
        probes: Random vectors behind it.
    """

    eigenvalues: Annotated[list[Finite], Field(min_length=1, max_length=MOST)]
    shares: Annotated[list[Share], Field(min_length=1, max_length=MOST)]
    trace: Estimate
    probes: Count

    @model_validator(mode="after")
    def _consistent(self) -> "Density":
        if len(self.eigenvalues) != len(self.shares):
            raise ValueError(f"shares has {len(self.shares)} values for {len(self.eigenvalues)} eigenvalues")
        if abs(sum(self.shares) - 1.0) > 1e-6:
            raise ValueError(f"shares must add up to 1, got {sum(self.shares):.6g}")
        return self


class Covariance(_Part):
    """Covariance of one sample's gradient along the Hessian's leading eigenvectors.

    Attributes:
        along: Its diagonal.
        matrix: All of it, shape (eigenvectors, eigenvectors).
        off_diagonal: Share of the sum of squares that is off the diagonal.
        route: Whether from single samples' gradients or from batches.
        gradients: How many of them.
    """

    along: Annotated[list[Estimate], Field(min_length=1, max_length=MOST)]
    matrix: Annotated[list[list[Finite]], Field(min_length=1, max_length=MOST)]
    off_diagonal: Error
    route: Literal["samples", "batches"]
    gradients: Count

    @model_validator(mode="after")
    def _consistent(self) -> "Covariance":
        if {len(row) for row in self.matrix} | {len(self.matrix)} != {len(self.along)}:
            raise ValueError(f"matrix must have {len(self.along)} rows and columns, as along has")
        return self


class NoiseSummary(_Part):
    """Gradient noise of one sample: variances fall in proportion to the batch.

    Attributes:
        total: Over all parameters.
        covariance: Along leading eigenvectors.
        rest: Mean variance along a direction orthogonal to those.
        gradient_square: Squared length of the mean gradient.
        scale: Batch at which noise equals signal [samples]; None where the gradient is lost in the noise.
        scale_two_batch: The same by McCandlish et al.'s two-batch estimator; None for loaders told by rounds.
    """

    total: Estimate
    covariance: Covariance
    rest: Estimate
    gradient_square: Estimate
    scale: Estimate | None
    scale_two_batch: Estimate | None


class Seconds(_Part):
    """Time of one gradient [s]: median with its standard error, 10 % and 90 % quantiles."""

    median: Error
    standard_error: Error
    low: Error
    high: Error


class Batch(_Part):
    """Gradients of one batch size: their time, and one sample's variance as seen through them."""

    batch_size: Annotated[int, Field(strict=True, ge=1)]
    gradients: Count
    seconds: Seconds
    total: Estimate


class Place(_Part):
    """The landscape at one place.

    Attributes:
        updates: Updates of plain SGD before.
        learning_rate: Of those.
        loss: Training loss.
        samples: Behind curvatures.
        hessian: Leading eigenvalues, descending.
        gauss_newton: Those of the Gauss-Newton matrix; None where the loss is not one of a single output.
        density: Of the Hessian.
        noise: Of gradients.
        batches: By batch size.
    """

    updates: Count
    learning_rate: Error | None
    loss: Finite
    samples: Count
    hessian: Annotated[list[Eigenvalue], Field(min_length=1, max_length=MOST)]
    gauss_newton: Annotated[list[Eigenvalue], Field(max_length=MOST)] | None
    density: Density
    noise: NoiseSummary
    batches: Annotated[list[Batch], Field(min_length=1, max_length=MOST)]

    @model_validator(mode="after")
    def _consistent(self) -> "Place":
        for name, found in (("hessian", self.hessian), ("gauss_newton", self.gauss_newton or [])):
            if any(later.value > earlier.value for earlier, later in itertools.pairwise(found)):
                raise ValueError(f"{name} must descend")
        return self

    @property
    def curvature(self) -> float:
        """Largest Hessian eigenvalue."""
        return self.hessian[0].value


class Landscape(_Part):
    """What was measured of a network's landscape, at its start and at places that SGD came to.

    Attributes:
        workload: Kind, data and options of what was measured.
        seed: Of first parameters and batches.
        parameters: Trainable.
        batch_size: Samples a gradient.
        gradients: Spent, in gradients of that batch; a product with second derivatives counts as three.
        seconds: It took [s].
        places: In the order of their updates, the start first.
        notes: What to know.
    """

    format: Literal["stalewise landscape"] = FORMAT
    version: Literal[1] = VERSION
    workload: dict[str, Any]
    seed: Count
    parameters: Annotated[int, Field(strict=True, ge=1)]
    batch_size: Annotated[int, Field(strict=True, ge=1)]
    gradients: Error
    seconds: Error
    places: Annotated[list[Place], Field(min_length=1, max_length=MOST)]
    notes: list[str] = []

    @field_validator("places")
    @classmethod
    def _in_order(cls, value: list[Place]) -> list[Place]:
        updates = [place.updates for place in value]
        if updates[0] != 0 or updates != sorted(updates):
            raise ValueError("places must begin at update 0 and go on in the order of updates")
        return value

    @property
    def stiffest(self) -> Place:
        """Where the curvature is largest."""
        return max(self.places, key=lambda place: place.curvature)

    def to_json(self) -> str:
        """One strictly valid JSON document."""
        return to_json(self.model_dump())


def load_landscape(path: str | Path) -> Landscape:
    """Read what ``stalewise measure`` wrote.

    Args:
        path: The JSON file.

    Raises:
        InputError: It is missing or not such a file; one line.
    """
    path = Path(path)
    found = load_json(path, "landscape file")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"landscape file: {path.name} is not what `stalewise measure` writes: no format = {FORMAT!r}")
    if found.get("version") != VERSION:
        raise InputError(
            f"landscape file: {path.name} has version {found.get('version')!r}, {VERSION} is what can be read; measure "
            "anew"
        )
    try:
        return Landscape.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = str(first.get("ctx", {}).get("error", "")) or first["msg"].replace("Input should be", "must be")
        shown = "" if first["type"] in ("missing", "value_error") else f", got {str(first.get('input'))[:40]}"
        raise InputError(f"landscape file: {path.name}: {place}: {said[0].lower() + said[1:]}{shown}") from None


def rest_of(total: Estimate, covariance: Covariance, parameters: int) -> Estimate:
    """Mean variance along a direction orthogonal to the eigenvectors of ``covariance``."""
    left = parameters - len(covariance.along)
    if left <= 0:
        return Estimate(value=0.0, standard_error=0.0)
    spread = np.sqrt(total.standard_error**2 + sum(one.standard_error**2 for one in covariance.along))
    value = total.value - sum(one.value for one in covariance.along)
    return Estimate(value=max(0.0, float(value)) / left, standard_error=float(spread) / left)
