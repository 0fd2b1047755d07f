"""A gallery with many equal rows: each of them is compared once, and counted as often as it stands.

Equal rows have equal scores, so ranks among them are those of the names: they are counted by
searching sorted places, not by scoring or sorting pairs.
"""

from dataclasses import dataclass, replace

import numpy as np

from mltool.exact.relevance import Relevance


@dataclass(frozen=True, eq=False)
class Copies:
    """The groups of equal gallery rows; made by `copies_of`."""

    firsts: np.ndarray  # [G] a row of each group
    relevance: Relevance
    kinds: int  # more than there are codes
    group: np.ndarray  # [N] of each gallery row
    by_place: np.ndarray  # [N] ascending keys of (group, place)
    by_code: np.ndarray  # [N] ascending keys of (group, code, place)

    def irrelevant(self, codes: np.ndarray, own: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """How many rows of the groups [n] are irrelevant to queries with these codes and rows."""
        return self.before(codes, own, groups, np.full(len(groups), len(self.group)))

    def before(
        self, codes: np.ndarray, own: np.ndarray, groups: np.ndarray, places: np.ndarray
    ) -> np.ndarray:
        """Of those rows, how many stand before these places [n] in the order of ties."""
        size, known = len(self.group), self.relevance
        least = groups * (size + 1)
        found = np.searchsorted(self.by_place, least + places)
        found -= np.searchsorted(self.by_place, least)
        least = self._key(groups, codes)
        relevant = np.searchsorted(self.by_code, least + places)
        relevant -= np.searchsorted(self.by_code, least)
        found -= np.where(codes >= 0, relevant, 0)
        there = (own >= 0) & (self.group[own] == groups) & (known.places[own] < places)
        # a query's own row of another code was not among the relevant ones
        return found - (there & ((known.gallery_codes[own] != codes) | (codes < 0)))

    def _key(self, groups: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return (groups * self.kinds + codes + 1) * (len(self.group) + 1)


def copies_of(originals: np.ndarray, relevance: Relevance) -> Copies | None:
    """From each gallery row's first equal row [N]; None where their keys have over 63 bits."""
    firsts, group = np.unique(originals, return_inverse=True)
    kinds = 2 + max(
        int(codes.max(initial=-1)) for codes in (relevance.query_codes, relevance.gallery_codes)
    )
    if len(firsts) * kinds * (len(group) + 1) >= 2**63:
        return None
    empty = np.empty(0, np.int64)
    made = Copies(firsts, relevance, kinds, group, empty, empty)
    by_place = np.sort(group * (len(group) + 1) + relevance.places)
    by_code = np.sort(made._key(group, relevance.gallery_codes) + relevance.places)
    return replace(made, by_place=by_place, by_code=by_code)
