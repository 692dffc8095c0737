"""Does the committed bundle score what its recipe says?

    python benchmarks/paper_bundle.py --root FOLDER

FOLDER holds the images of studies/paper/cifar4.toml. Prints both accuracies, and fails where they
differ.
"""

import argparse
from pathlib import Path

import dse
from dse.config import load_study
from dse.data import load_data
from dse.deploy.bundle import RECIPE_FILE
from dse.deploy.recipe import Recipe
from dse.finetune.loop import FORWARD_BATCH, evaluate

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "reports" / "paper" / "bundle"


def main() -> None:
    """Load the bundle and score it on the validation part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the images")
    given = parser.parse_args()
    recipe = Recipe.read(BUNDLE / RECIPE_FILE)
    study = load_study(
        str(ROOT / "studies" / "paper" / "cifar4_search.toml"),
        overrides=[f"data.root={given.root}"],
    )
    validation = load_data(study.data, seed=study.seed).validation
    scored = evaluate(dse.load(BUNDLE), validation, batch_size=FORWARD_BATCH).accuracy
    print(f"recipe {recipe.accuracy:.4f}, scored {scored:.4f} over {len(validation)} images")
    if abs(scored - recipe.accuracy) * len(validation) > 1:  # one image may sit on the fence
        raise SystemExit("the bundle does not score what its recipe says")


if __name__ == "__main__":
    main()
