"""Relation groups as arrays, the same for every model, built from tables of `COLUMN_SCHEMA` part by part.

Dimensions: G groups, S sequences of all groups, R relations of all groups, M members (a sequence on one side of a
relation), N gaps (a prompt with both responses), P distinct original prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mapl_ray.data.records import RelationGroup
from mapl_ray.errors import RunError
from mapl_ray.evaluation.column_table import NAME_SEPARATOR, columns_table
from mapl_ray.evaluation.items import BoolArray, FloatArray, IntArray, RelationItems, Rewards

_INDEX = np.int32  # sequences and relations: there are fewer than 2**31 in a driver


@dataclass(frozen=True, slots=True, eq=False)
class RelationSide:
    """One side of all relations: `cell_M` holds `length_R[r]` sequence indices for each relation r, in order."""

    cell_M: IntArray
    length_R: IntArray

    def sums(self, rewards_S: FloatArray) -> FloatArray:
        """Sum of rewards per relation, [R] float64, added in the order of the data."""
        relation_M = np.repeat(np.arange(len(self.length_R), dtype=_INDEX), self.length_R)
        sums_R = np.bincount(relation_M, weights=rewards_S[self.cell_M], minlength=len(self.length_R))
        return sums_R.astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class GroupColumns:
    """The arrays that the metrics need, for G groups."""

    pair_ids: pa.ChunkedArray  # [G]
    items: RelationItems
    group_S: IntArray  # index of the group
    original_S: BoolArray  # whether the sequence has the original prompt
    words_S: IntArray  # number of words in the response
    preferred: RelationSide
    dispreferred: RelationSide
    gap_kind_N: IntArray  # index into `GAP_KINDS`
    gap_chosen_N: IntArray  # index of the sequence
    gap_rejected_N: IntArray
    chosen_longer_G: IntArray  # number of words in chosen minus number of words in rejected
    text_words_G: IntArray  # number of words in the original prompt and the responses
    functions_G: IntArray  # index into `function_sets`
    function_sets: tuple[frozenset[str], ...]

    def __len__(self) -> int:
        return len(self.text_words_G)

    @classmethod
    def of_tables(cls, tables: Iterable[pa.Table], families: Mapping[str, str]) -> GroupColumns:
        """Concatenate tables with `pair_id` and the columns of `COLUMN_SCHEMA`, one in memory at a time.

        `families` maps a function's name to its family. Functions that are not in it count as `unknown`.
        """
        collected = _Collected(families)
        for table in tables:
            collected.add(table)
        return collected.columns()


def columns_of_groups(groups: Sequence[RelationGroup], families: Mapping[str, str]) -> GroupColumns:
    """The columns of groups in memory."""
    ids = pa.array([group.pair_id for group in groups], pa.string())
    return GroupColumns.of_tables([columns_table(groups).append_column("pair_id", ids)], families)


def flat_rewards(columns: GroupColumns, rewards: Rewards, model: str) -> FloatArray:
    """One model's rewards [S] from one tuple per group. Raises `RunError`, with `model`, if the sizes do not match."""
    sizes_G = np.bincount(columns.group_S, minlength=len(columns))
    if len(rewards) != len(columns):
        raise RunError(f"model {model}: got rewards of {len(rewards)} groups, expected {len(columns)}.")
    for index, (of_group, size) in enumerate(zip(rewards, sizes_G, strict=True)):
        if len(of_group) != size:
            raise RunError(
                f"model {model}, group {columns.pair_ids[index]}: got {len(of_group)} rewards, expected {size}."
            )
    return np.array([reward for of_group in rewards for reward in of_group], dtype=np.float64)


def cell_values(table: pa.Table, by_response: pa.ChunkedArray) -> IntArray:
    """The value of each sequence's response, [S]. `by_response` has a list per group, with one value per response."""
    cells_G, response_S = _lists(table, "cell_responses")
    lists = by_response.combine_chunks()
    lengths_G = _lengths(lists)
    start_G = np.cumsum(lengths_G) - lengths_G
    values: IntArray = lists.flatten().to_numpy(zero_copy_only=False)[np.repeat(start_G, cells_G) + response_S]
    return values


def relation_margins(columns: GroupColumns, rewards_S: FloatArray, model: str) -> FloatArray:
    """Margins [R]: sum of rewards of preferred minus dispreferred sequences (docs/method.md).

    Raises `RunError`, with `model`, if the rewards do not match the groups or are not finite.
    """
    if len(rewards_S) != len(columns.group_S):
        raise RunError(
            f"model {model}: got {len(rewards_S)} rewards, but the groups have {len(columns.group_S)} sequences."
        )
    bad_S = ~np.isfinite(rewards_S)
    if bad_S.any():
        index = columns.group_S[int(np.argmax(bad_S))]
        found = rewards_S[columns.group_S == index].tolist()
        raise RunError(f"model {model}, group {columns.pair_ids[int(index)]}: the rewards are not finite: {found}.")
    return columns.preferred.sums(rewards_S) - columns.dispreferred.sums(rewards_S)


class _Collected:
    """Collects the arrays of several tables."""

    def __init__(self, families: Mapping[str, str]) -> None:
        self._families = families
        self._arrays: dict[str, list[Any]] = {}
        self._ids: list[pa.Array] = []
        self._groups = self._cells = 0
        self._family_codes: dict[frozenset[str], int] = {}
        self._function_codes: dict[frozenset[str], int] = {}

    def add(self, table: pa.Table) -> None:
        """Append the groups of one table."""
        self._ids += table.column("pair_id").chunks
        cells_G, prompt_S = _lists(table, "cell_prompts")
        _, response_S = _lists(table, "cell_responses")
        words_G, words = _lists(table, "response_words")
        group_S = np.repeat(np.arange(len(cells_G)), cells_G)
        words_start_G = np.cumsum(words_G) - words_G
        self._put("group_S", group_S + self._groups)
        self._put("original_S", prompt_S == 0, np.bool_)
        self._put("words_S", cell_values(table, table.column("response_words")))
        self._put("chosen_longer_G", words[words_start_G] - words[words_start_G + 1])
        self._put("text_words_G", table.column("text_words").to_numpy())
        self._put("prompt_key_G", table.column("prompt_key").to_numpy(), np.uint64)
        self._put("functions_G", _coded(table.column("functions"), self._function_codes, lambda name: name))
        self._add_relations(table, np.cumsum(cells_G) - cells_G)
        self._add_gaps(table, group_S, prompt_S, response_S)
        self._groups += len(cells_G)
        self._cells += len(group_S)

    def _add_relations(self, table: pa.Table, start_G: IntArray) -> None:
        relations_G, levels_R = _lists(table, "levels")
        group_R = np.repeat(np.arange(len(relations_G)), relations_G)
        self._put("level_R", levels_R, np.int8)
        self._put("group_R", group_R + self._groups)
        self._put("k_R", _lists(table, "instructions_k")[1])
        self._put("unseen_R", _lists(table, "unseen_phrasing")[1], np.bool_)
        names = table.column("relation_functions").combine_chunks().flatten()
        self._put("family_R", _coded(names, self._family_codes, lambda name: self._families.get(name, "unknown")))
        for side in ("preferred", "dispreferred"):
            of_relations = table.column(side).combine_chunks().flatten()
            length_R = _lengths(of_relations)
            cell_M = of_relations.flatten().to_numpy(zero_copy_only=False)
            self._put(f"{side}_length_R", length_R, np.int8)
            self._put(f"{side}_M", cell_M + np.repeat(start_G[group_R], length_R) + self._cells)

    def _add_gaps(self, table: pa.Table, group_S: IntArray, prompt_S: IntArray, response_S: IntArray) -> None:
        kinds_G, kinds = _lists(table, "prompt_kinds")
        key_S = (np.cumsum(kinds_G) - kinds_G)[group_S] + prompt_S  # index of the prompt in the table
        chosen, rejected = (np.flatnonzero(response_S == response) for response in (0, 1))
        key_N, chosen_N, rejected_N = np.intersect1d(key_S[chosen], key_S[rejected], return_indices=True)
        of_kind_N = kinds[key_N] >= 0
        self._put("gap_kind_N", kinds[key_N][of_kind_N], np.int8)
        self._put("gap_chosen_N", chosen[chosen_N][of_kind_N] + self._cells)
        self._put("gap_rejected_N", rejected[rejected_N][of_kind_N] + self._cells)

    def _put(self, name: str, values: Any, dtype: Any = _INDEX) -> None:
        self._arrays.setdefault(name, []).append(np.asarray(values).astype(dtype))

    def _all(self, name: str) -> Any:
        parts = self._arrays.pop(name, None)  # the parts are freed one column after another
        return np.concatenate(parts) if parts else np.empty(0, dtype=_INDEX)

    def columns(self) -> GroupColumns:
        """Concatenate the arrays of all tables."""
        prompt_G, group_R = _by_first_occurrence(self._all("prompt_key_G")), self._all("group_R")
        items = RelationItems(
            level_R=self._all("level_R"),
            group_R=group_R,
            prompt_R=prompt_G[group_R],
            k_R=self._all("k_R"),
            family_R=self._all("family_R"),
            family_sets=tuple(self._family_codes),
            unseen_phrasing_R=self._all("unseen_R").astype(np.bool_),
        )
        return GroupColumns(
            pair_ids=pa.chunked_array(self._ids, pa.string()),
            items=items,
            group_S=self._all("group_S"),
            original_S=self._all("original_S").astype(np.bool_),
            words_S=self._all("words_S"),
            preferred=RelationSide(self._all("preferred_M"), self._all("preferred_length_R")),
            dispreferred=RelationSide(self._all("dispreferred_M"), self._all("dispreferred_length_R")),
            gap_kind_N=self._all("gap_kind_N"),
            gap_chosen_N=self._all("gap_chosen_N"),
            gap_rejected_N=self._all("gap_rejected_N"),
            chosen_longer_G=self._all("chosen_longer_G"),
            text_words_G=self._all("text_words_G"),
            functions_G=self._all("functions_G"),
            function_sets=tuple(self._function_codes),
        )


def _lists(table: pa.Table, name: str) -> tuple[IntArray, Any]:
    """The length of each list in a column, and the concatenated values."""
    lists = table.column(name).combine_chunks()
    return _lengths(lists), lists.flatten().to_numpy(zero_copy_only=False)


def _lengths(lists: Any) -> IntArray:
    lengths: IntArray = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def _coded(names: Any, codes: dict[frozenset[str], int], mapped: Any) -> IntArray:
    """Encode texts of joined names: map each name, and give each distinct set of results a code."""
    encoded = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    encoded = encoded.dictionary_encode()
    sets = [frozenset(map(mapped, filter(None, text.split(NAME_SEPARATOR)))) for text in encoded.dictionary.to_pylist()]
    table = np.array([codes.setdefault(one, len(codes)) for one in sets], dtype=_INDEX)
    return table[encoded.indices.to_numpy(zero_copy_only=False)] if len(table) else np.empty(0, dtype=_INDEX)


def _by_first_occurrence(key_G: Any) -> IntArray:
    """Number the keys in the order of their first occurrence; equal keys get the same index."""
    _, first_P, inverse_G = np.unique(key_G, return_index=True, return_inverse=True)
    rank_P = np.empty(len(first_P), dtype=_INDEX)
    rank_P[np.argsort(first_P)] = np.arange(len(first_P), dtype=_INDEX)
    ranks: IntArray = rank_P[inverse_G]
    return ranks
