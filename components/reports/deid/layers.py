"""The layers in force, in order: known PHI, structured patterns, names by context, institutions, suspects, a model."""

from __future__ import annotations

from components.reports.deid.addresses import Addresses
from components.reports.deid.codes import Codes
from components.reports.deid.contacts import Contacts
from components.reports.deid.dates import Dates
from components.reports.deid.frames import Frames
from components.reports.deid.identifiers import Identifiers
from components.reports.deid.known import KnownPhi
from components.reports.deid.names import Names
from components.reports.deid.national import National
from components.reports.deid.places import Places
from components.reports.deid.shapes import Shapes
from components.reports.deid.span import Layer
from components.reports.deid.suspects import Suspects
from components.reports.deid.wordlists import Lists


def default_layers(
    lists: Lists | None = None, model: str | None = None, suspects: bool | float = True
) -> tuple[Layer, ...]:
    """The layers in order.

    `lists` narrow what the layers of names know, `model` is a statistical detector's folder; `suspects` is whether
    words that no layer took are judged by their surroundings, or from which probability on they are PHI.
    """
    from components.reports.deid.statistical import statistical_layers

    patterns = (Dates(), Contacts(), Addresses(), Identifiers(), National(), Codes(), Shapes())
    judged: tuple[Layer, ...] = ()
    if suspects is not False:
        judged = (Suspects(None if suspects is True else suspects, lists),)
    return (KnownPhi(), *patterns, Names(lists), Places(), Frames(), *judged, *statistical_layers(model))
