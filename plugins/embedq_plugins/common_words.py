"""English words that say little about a text: what stands in for an IDF where no corpus can be counted."""

from typing import Final

# Grammar, and the verbs of every question and every instruction.
STOP_WORDS: Final = frozenset(
    """
    a about after all also am an and any are as at be because been before being between both but by can could
    did do does doing done don down each else etc few for from further get gets give given gives had has have
    having he her here hers him his how i if in into is isn it its itself just let like ll make makes many may
    me might more most much must my need needs no nor not now of off on once one only or other our out over
    own per please same she should show since so some such tell than that the their them then there these they
    this those through to too two under until up upon us use used uses using ve very via want was way we well
    were what when where whether which while who whom whose why will with within without would you your
    """.split()  # noqa: SIM905 - two hundred quoted words are no easier to read
)

# The furniture of technical prose.
COMMON_WORDS: Final = frozenset(
    """
    add added addition allow allowed allows already always arg argument arguments associated available b based
    begin bool byte bytes c call called caller calls case change char character characters class code contain
    containing contains create created creates current d data default defined different directory e element
    elements end entry equal error example exception exist exists expected f false file filename files find
    first following form format found func function functions general handle handler index information input
    instance instead int integer item items key keyword kind last length line list long method methods mode
    module n name named names new next none note nothing number object objects open operation option optional
    order output parameter parameters part pass passed path point position possible program provide provided
    put python raise raised raises read result return returned returning returns run s second self sequence
    set side similar simple single size specified standard start state str string subclass support supported
    system take takes text time true try type unless user usually value values variable version whole word
    work write written x y z
    """.split()  # noqa: SIM905 - two hundred quoted words are no easier to read
)
