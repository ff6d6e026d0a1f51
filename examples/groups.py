"""Relation groups from a `datasets.Dataset` of preference pairs.

python examples/groups.py
"""

from collections.abc import Iterator

from datasets import Dataset

import mapl_ray


def pairs(limit: int | None = None) -> Dataset:
    """The sample that ships with the package. Any data set of preference pairs works, from a hub or from files."""
    found = mapl_ray.read_pairs(mapl_ray.DataConfig(limit=limit))
    rows = (pair.to_row() for pair in found if isinstance(pair, mapl_ray.PreferencePair))
    return Dataset.from_list([{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])


def groups(dataset: Dataset) -> Iterator[mapl_ray.RelationGroup]:
    """Yield one group per pair; print the reason if no instructions are found for a pair."""
    config = mapl_ray.SynthesisConfig(max_instructions=3)
    for pair in mapl_ray.read_rows(dataset):
        result = pair if isinstance(pair, mapl_ray.Rejection) else mapl_ray.synthesize(pair, config, seed=0)
        if isinstance(result, mapl_ray.Rejection):
            print(f"left out: {result.pair_id}: {result.reason}")
        else:
            yield result


def main() -> Dataset:
    """Print one group, and return all groups as a data set for `MaplTrainer`."""
    made = list(groups(pairs()))
    for index, prompt in enumerate(made[0].prompts):
        print(f"prompt {index}: {prompt[-1].content}")
    cells = [f"(prompt {cell.prompt}, response {cell.response})" for cell in made[0].sequences]
    for relation in made[0].relations:
        preferred, dispreferred = ([cells[i] for i in side] for side in (relation.preferred, relation.dispreferred))
        print(f"{relation.level}: {' + '.join(preferred)} over {' + '.join(dispreferred)}")
    return mapl_ray.groups_dataset(made)


if __name__ == "__main__":
    print(main())
