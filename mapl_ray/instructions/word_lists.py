"""Word lists: stop words, which are never keywords, and plausible words for draws without another text."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


STOP_WORDS: frozenset[str] = frozenset(
    _words("""
    about above across actually after again against almost alone along already also although always among another any
    anyone anything around because been before behind being below beneath beside besides between beyond both came can
    cannot come could dare despite did does doing done down during each either else enough especially etc even ever
    every everyone everything except few fewer first for from further gave get gets getting give given gives giving goes
    going gone got had has have having he hence her here hers herself him himself his how however http https html
    indeed instead into isn itself just keep kept know knew known last later least less let lets like likely made main
    mainly make makes making many may maybe might mine more moreover most mostly much must myself near nearly need
    needs neither never next none nor nothing now off often once one ones only onto other others otherwise ought our
    ours ourselves out over own perhaps please quite rather really said same saw say says see seem seemed seems seen
    self several shall she should since some someone something sometimes somewhere soon still such sure take taken takes
    taking tell than that the their theirs them themselves then there therefore these they thing things this those
    though through throughout thus till together too took toward towards under unless until unto upon used using usually
    very want wants was way ways well went were what whatever when whenever where whereas wherever whether which while
    whom whose why will with within without would www yes yet you your yours yourself yourselves doesn didn don wasn
    weren wouldn couldn shouldn aren hasn haven isn add ago aid aim all and any are ask ate bit but can cut did due end
    far few fit for get got had has her him his how its led let lot low may met new nor not now off old one our out own
    per put ran red run saw say see set she sit six ten the too top try two use via was way who why yes yet you eg ie
    """)
)

# Content words that occur in answers on nearly any subject.
COMMON_WORDS: tuple[str, ...] = _words(
    """
    ability access account action activity advice amount analysis answer approach area aspect attention audience
    background balance basis behavior benefit body book budget building business capital care career case cause center
    challenge chance change character child choice city class color common community company comparison complete
    computer concept condition connection consider contact content context control cost country couple course create
    culture current customer daily data decision degree demand design detail develop development difference different
    difficult direction discussion distance early economy education effect effective effort element energy engine
    entire environment equipment event evidence example exercise experience expert explain face fact factor family
    feature feeling field figure final focus food force form foundation freedom friend function future game general
    goal government group growth guide habit health heart help history home hope house human idea impact important
    improve include increase individual industry influence information interest investment issue journey knowledge
    language large learning lesson letter level life light limit list local machine management market material matter
    meaning measure media meeting memory message method mind minute mistake model moment money month morning movement
    music nature network night number offer office option order organization page part particular partner party past
    pattern people performance period person picture piece place plan point policy popular position possible power
    practice present pressure price principle problem process product professional program progress project property
    provide public purpose quality question range rate reach reading reality reason record region relationship report
    research resource response result risk role rule safety scale school science season section security sense series
    service share simple situation size skill social society software solution sound source space special specific
    stage standard start state step story strategy strength structure student study style subject success support
    system table task teacher team technology term test theory thought time tool topic total trade tradition training
    travel type unique user value variety version view voice water week work world writing year
    """
)

OPENERS: tuple[str, ...] = _words(
    "A According Although An As At Certainly First For Here How I If In It Let Many Once One Please Sure Thank The "
    "There This To Today Unfortunately We When While Yes You Your"
)

# Common closing sentences.
ENDINGS: tuple[str, ...] = (
    "Thank you for your time.", "Thanks for reading!", "Have a great day!", "Good luck!", "Take care.",
    "I hope this helps.", "Let me know what you think.", "Feel free to ask.", "Stay safe.", "Enjoy your meal!",
    "See you next time.", "What do you think?", "The choice is yours.", "And that is all.", "Happy reading!",
    "All the best.",
)  # fmt: skip

# Letters that occur often in most answers, so that a bound on their number is meaningful.
COUNTED_LETTERS = "abcdefghiklmnoprstuvwy"

# Personal pronouns, by the count that they belong to.
PRONOUNS: dict[str, tuple[str, ...]] = {
    "first_person": _words("i me my mine myself"),
    "first_person_plural": _words("we our ours ourselves"),  # without "us", because "US" is also the country
    "second_person": _words("you your yours yourself yourselves"),
    "third_person": _words("he him his she her hers"),
}

# About half of the words of an English text are among these; few of them are words of another language.
ENGLISH_WORDS: frozenset[str] = STOP_WORDS | frozenset(
    _words("of to a in is it on as be or at i we an by if do so he my no")
)

PERSONAL: frozenset[str] = frozenset(_words("i me you he him she her it we us they them"))
POSSESSIVE: frozenset[str] = frozenset(
    _words(
        "my mine myself your yours yourself yourselves his himself hers herself its itself our ours ourselves their "
        "theirs themselves"
    )
)
