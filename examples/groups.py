"""Relation groups from a `datasets.Dataset` of preference pairs.

python examples/groups.py
"""

from collections.abc import Iterator

from datasets import Dataset

import mapl_ray


def pairs() -> Dataset:
    """The sample that ships with the package; any data set of preference pairs does, from a hub or from files."""
    rows = (
        pair.to_row()
        for pair in mapl_ray.read_pairs(mapl_ray.DataConfig())
        if isinstance(pair, mapl_ray.PreferencePair)
    )
    return Dataset.from_list([{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])


def groups(dataset: Dataset) -> Iterator[mapl_ray.RelationGroup]:
    """A group for every pair for which instructions can be found; the others are printed with the reason."""
    config = mapl_ray.SynthesisConfig(max_instructions=3)
    for pair in mapl_ray.read_rows(dataset):
        result = pair if isinstance(pair, mapl_ray.Rejection) else mapl_ray.synthesize(pair, config, seed=0)
        if isinstance(result, mapl_ray.Rejection):
            print(f"left out: {result.pair_id}: {result.reason}")
        else:
            yield result


def main() -> Dataset:
    """Print one group; the groups as a data set, which `MaplTrainer` takes."""
    made = list(groups(pairs()))
    for index, prompt in enumerate(made[0].prompts):
        print(f"prompt {index}: {prompt[-1].content}")
    for relation in made[0].relations:
        cells = made[0].sequences
        sides = (relation.preferred, relation.dispreferred)
        print(
            relation.level,
            *("; ".join(f"(prompt {cells[i].prompt}, response {cells[i].response})" for i in side) for side in sides),
            sep=" | ",
        )
    return mapl_ray.groups_dataset(made)


if __name__ == "__main__":
    print(main())
