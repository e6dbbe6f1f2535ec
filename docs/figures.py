"""Draws docs/figures/*.svg anew and writes their captions, docs/figures.md: the source paper's claims, with numbers.

Run: python docs/figures.py [FOLDER OF MNIST]   (make figures MNIST=FOLDER). Without MNIST its picture stays as it is.
"""

import json
import sys
from pathlib import Path

from stalewise.claims import CLAIMS, Effort, draw
from stalewise.report.drawing import claim_svg
from stalewise.report.figures import claims_text

HERE = Path(__file__).parent
DATA = HERE / "figures" / "captions.json"
HEAD = """# The source paper's claims, as figures

    stalewise figures --out runs/figures --data FOLDER_OF_MNIST    # or by name: stalewise figures workers hitting

Claims of Yu, Chen, Poor, "Distributed Stochastic Gradient Descent with Staleness: A Stochastic Delay Differential
Equation Based Framework" (IEEE Transactions on Signal Processing, 2025), each computed by theory and by independent
simulation. Lines are theory, dots simulations with 95 % intervals over seeds. Captions and verdicts are computed from
the numbers, nothing in them is written by hand; this page is made by `make figures`. Problems are
`examples/quadratic.toml` unless the caption says otherwise; `--quick` takes an eighth of the repetitions.

"""


def main(data: Path | None) -> None:
    """Draw every figure."""
    DATA.parent.mkdir(exist_ok=True)
    told = json.loads(DATA.read_text()) if DATA.exists() else {}
    for name in CLAIMS:
        if name == "mnist" and data is None:
            continue
        figure = draw(name, Effort(data=data)).as_dict()
        (DATA.parent / f"{name}.svg").write_text(claim_svg(figure))
        told[name] = {key: figure[key] for key in ("name", "claim", "verdict", "caption")}
        print(name, figure["verdict"])
        DATA.write_text(json.dumps(told, indent=1) + "\n")
    page = claims_text([told[name] for name in CLAIMS if name in told], "figures/")
    (HERE / "figures.md").write_text(HEAD + page)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
