"""Abbreviations that keep their full stop in the Penn Treebank's way of parting words, by what they need after them.

Case does not count except where an entry has capitals: "Miss." is short for Mississippi, "miss." ends a sentence.
"""

from __future__ import annotations

__all__ = ["BEFORE_NUMBERS", "CASED", "EVER", "OPENING", "PLAIN"]

_MONTHS_AND_DAYS = "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri"
_STATES = "ala ariz calif colo conn ct dak fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va vt wis wisc wyo"
_FIRMS = "inc co cos corp pty ptys ppty pptys pte ptes ppte pptes ltd plc rt bancorp bhd assn univ intl sys"
_VARIOUS = "tel est ext sq jr sr bros ed.d ph.d blvd rd esq etc al seq bldg"
_TITLES = (
    "mr mrs ms dr drs prof profs sen sens rep reps atty attys lt col gen messrs gov govs adm rev maj sgt cpl pvt capt st ste "
    "ave pres lieut hon brig cmdr comdr pfc spc supt supts det mt ft adj adv asst assoc ens insp mlle mme msgr sfc"
)
_OTHERS = "invt elec natl mtg mfg dept vs alex wm jos cie a.k.a cf treas ph"

PLAIN = frozenset(" ".join((_MONTHS_AND_DAYS, _STATES, _FIRMS, _VARIOUS)).split())
"""Normally inside a sentence; before a capital letter, and at the end, the full stop ends the sentence besides."""

CASED = frozenset(["Az", "Ark", "Del", "Ill", "La", "Mass", "Miss", "Ore", "Pa", "Tex", "Wash"])
"""Of the same kind, but words when written without the capital."""

EVER = frozenset(" ".join((_TITLES, _OTHERS)).split())
"""Whatever follows."""

BEFORE_NUMBERS = frozenset(["ca", "fig", "figs", "prop", "no", "nos", "art", "arts", "bldg", "pp", "op"])
"""Only where a number follows."""

_SENTENCES = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many "
    "More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There These They This "
    "We What When While Yet You "
)
OPENING = frozenset(_SENTENCES.split())
"""Words that begin a sentence after an initial, whose full stop is then one: "the letter G. The man", but "J. Smith"."""
