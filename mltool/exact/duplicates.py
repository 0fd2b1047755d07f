"""Group equal gallery rows, so that one of each is compared and counted as often as it occurs.

Gallery rows a to e, of which a, c, d are equal (first equal rows 0, 1, 0, 0, 4), with the labels
0, 1, 1, 0, 1. To a query of label 0 the group of a, c, d holds one irrelevant row, which is c: it
stands before d in the order of ties, but not before a.

>>> relevance = Relevance(
...     query_label_ids=np.array([0]), gallery_label_ids=np.array([0, 1, 1, 0, 1]),
...     self_rows=np.array([-1]), tie_order=np.arange(5),
... )
>>> groups = group_duplicates(np.array([0, 1, 0, 0, 4]), relevance)
>>> groups.representatives.tolist(), groups.group_of_row.tolist()
([0, 1, 4], [0, 1, 0, 0, 2])
>>> label_ids, self_rows, group = np.array([0]), np.array([-1]), np.array([0])
>>> groups.count_irrelevant(label_ids, self_rows, group).tolist()
[1]
>>> [groups.count_irrelevant_before(label_ids, self_rows, group, np.array([row])).tolist()
...  for row in (3, 0)]
[[1], [0]]

Equal rows have equal scores, so their order among each other is that of the names: it is counted by
searching sorted keys, not by scoring or sorting pairs.

Threads: groups never change, so any number of threads may read them.
"""

from dataclasses import dataclass, replace

import numpy as np

from mltool.exact.relevance import Relevance


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The groups of equal gallery rows; made by `group_duplicates`.

    A key is a tuple of small numbers written as one integer, so that a sorted array of keys tells
    by two binary searches how many rows share the first numbers and lie below in the last.
    """

    representatives: np.ndarray  # [G] a row of each group
    relevance: Relevance
    label_base: int  # above every label id + 1, hence the base of that digit of a key
    group_of_row: np.ndarray  # [N]
    tie_keys: np.ndarray  # [N] ascending keys (group, tie order)
    label_keys: np.ndarray  # [N] ascending keys (group, label id, tie order)

    def count_irrelevant(
        self, label_ids: np.ndarray, self_rows: np.ndarray, groups: np.ndarray
    ) -> np.ndarray:
        """Count the rows of groups [n] that are irrelevant to queries [n].

        The queries are described by their label ids and by the gallery rows of themselves.
        """
        behind_all = np.full(len(groups), len(self.group_of_row))
        return self.count_irrelevant_before(label_ids, self_rows, groups, behind_all)

    def count_irrelevant_before(
        self,
        label_ids: np.ndarray,
        self_rows: np.ndarray,
        groups: np.ndarray,
        tie_order: np.ndarray,
    ) -> np.ndarray:
        """Count those of these rows that stand before `tie_order` [n] in the order of ties."""
        relevance = self.relevance
        lowest = groups * (len(self.group_of_row) + 1)
        count = np.searchsorted(self.tie_keys, lowest + tie_order)
        count -= np.searchsorted(self.tie_keys, lowest)
        lowest = self._label_key(groups, label_ids)
        relevant = np.searchsorted(self.label_keys, lowest + tie_order)
        relevant -= np.searchsorted(self.label_keys, lowest)
        count -= np.where(label_ids >= 0, relevant, 0)
        holds_self = (self_rows >= 0) & (self.group_of_row[self_rows] == groups)
        holds_self &= relevance.tie_order[self_rows] < tie_order
        # a query's own row of another label was not among the relevant ones
        is_other_label = (relevance.gallery_label_ids[self_rows] != label_ids) | (label_ids < 0)
        return count - (holds_self & is_other_label)

    def _label_key(self, groups: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
        return (groups * self.label_base + label_ids + 1) * (len(self.group_of_row) + 1)


def group_duplicates(first_equal_rows: np.ndarray, relevance: Relevance) -> Duplicates | None:
    """Group the gallery rows, given the index of each row's first equal row [N].

    Returns None where a combined sort key would not fit into int64.
    """
    representatives, group_of_row = np.unique(first_equal_rows, return_inverse=True)
    label_base = 2 + max(
        int(label_ids.max(initial=-1))
        for label_ids in (relevance.query_label_ids, relevance.gallery_label_ids)
    )
    if len(representatives) * label_base * (len(group_of_row) + 1) >= 2**63:
        return None
    empty = np.empty(0, np.int64)
    groups = Duplicates(representatives, relevance, label_base, group_of_row, empty, empty)
    tie_keys = np.sort(group_of_row * (len(group_of_row) + 1) + relevance.tie_order)
    label_keys = np.sort(
        groups._label_key(group_of_row, relevance.gallery_label_ids) + relevance.tie_order
    )
    return replace(groups, tie_keys=tie_keys, label_keys=label_keys)
