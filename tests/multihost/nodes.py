"""Where things ran: run on the head, for the State API is on its loopback. `python -m tests.multihost.nodes`

Prints a JSON object of two: "actors", by the name of their class, the node's id by the actor's, dead ones too; and
"calls", by the same name, the ids of the nodes on which calls came to an end.
"""

from __future__ import annotations

import json
from collections import defaultdict

from ray.util.state import list_actors, list_tasks

_MOST = 10_000


def main() -> None:
    """Ask and print."""
    actors: dict[str, dict[str, str]] = defaultdict(dict)
    for actor in list_actors(limit=_MOST):
        if actor.node_id:
            actors[actor.class_name][actor.actor_id] = actor.node_id
    calls: dict[str, set[str]] = defaultdict(set)
    for task in list_tasks(limit=_MOST, detail=True, filters=[("state", "=", "FINISHED")]):
        if task.node_id:
            calls[task.func_or_class_name].add(task.node_id)
    print(json.dumps({"actors": actors, "calls": {name: sorted(nodes) for name, nodes in calls.items()}}))


if __name__ == "__main__":
    main()
