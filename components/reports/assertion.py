"""Is a mention affirmed, denied or doubted? Cues with a scope, after NegEx and ConText (Chapman 2001, Harkema 2009).

The rules are written for this project. A cue before a mention reaches forward to a terminator (`but`, a
semicolon, a new clause); a cue after it reaches back within the clause; the nearest cue before decides.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache

PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"
UNASSESSED = "not_assessed"

_NO_CHANGE = (
    r"(?:(?:(?!(?:and|or|nor|with|but|in|cystic|nodular|degenerative|calcific|inflammatory|\w+(?:matous|otic|"
    r"atic|ctic|"
    r"ular))\b)[\w-]+ ){0,3}(?:change|increase|decrease|progression|growth|"
    r"enlargement of|difference|worsening|improvement|doubt|resolution|regression)\b|longer\b)"
)
PRIOR = (
    r" (?:on|in|at|during|as of) (?:the |an? |any |his |her )?(?:\[date\]|(?:most )?(?:prior|previous|earlier|"
    r"last|preceding|comparison|"
    r"older?|outside|initial|baseline|past|recent prior)\b|(?:19|20)\d\d\b|\d{1,2}[/.-]\d|(?:\d{1,2} )?"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b)| previously| before\b| earlier\b| then\b"
)
_SEEN = (
    r"(?:seen|identified|present|observed|detected|visuali[sz]ed|noted|evident|appreciated|"
    r"demonstrated|found|visible|apparent|shown|recogni[sz]ed|depicted|encountered|revealed|displayed|discernible|"
    r"discerned|documented|monitored|noticed|elicited|confirmed|verified|substantiated|established|reproduced|"
    r"proven|disclosed|imaged|delineated|perceived|perceptible|appreciable|detectable|made out|borne out)"
)
_DENIED_BEFORE = (
    rf"(?:^|[.;] ?)(?:not {_SEEN}|absent|negatives?|none) ?:|\bno\b(?! {_NO_CHANGE})|\bnot\b(?! (?:only|"
    rf"excluded?|ruled out|(?:significantly |completely |entirely |fully |"
    rf"substantially )?(?:changed|different|resolved|cleared|improved|decreased|increased)|be (?:excluded|ruled out)|"
    rf"certain|clear|exclude|rule out|necessarily|without|adequately|well\b|optimal\w*|definitely excluded|"
    rf"entirely exclude))"
    rf"|\b(?:is|are|was|were|do|does|did|has|have)n['\u2019]t\b(?! (?:exclude|rule out|resolved|changed))"
    rf"|\bwithout\b(?! {_NO_CHANGE})|\bwith no\b(?! {_NO_CHANGE})|\babsence of\b|\b(?:falls? |fell |"
    rf"stops? )?short of\b|\bspar(?:es|ing)\b|"
    r"\bpreviously (?:repaired|resected|removed|excised|drained)\b|\bnegative (?:\w+ )?for\b|"
    rf"\bfree (?:of|from)\b|\bclear of\b|\bdevoid of\b|\black(?:s|ing)? (?:of )?|\bdenie[sd]\b|\bdenying\b|"
    rf"\brather than\b|\binstead of\b|\bneither\b|\bnor\b|\bunremarkable for\b|\bargues? against\b|"
    rf"\babsent\b(?! (?:on|in|at))"
    r"|\b(?:has|have) been (?:ruled out|excluded)\b|\bexcludes?\b|\brules? out\b(?=[^.]{0,6}$)|"
    r"(?<!incomplete )(?<!partial )(?<!near )(?<!near-complete )(?<!no )\bresolution of\b|"
    r"(?<!partially )(?<!nearly )(?<!almost )(?<!not )\bresolved\b|\bfail(?:s|ed|ing)? to\b|\bnone of\b|\bnever\b|"
    r"\binterval (?:clearing|removal) of\b|(?:^|\brecently |\bnow )removed\b|\bremoval of\b|"
    r"\bnon-?visuali[sz]ation of\b|\bnothing\b|\b(?:cannot|can not|could not|unable to) (?:\w+ly )?(?:identify|see|"
    r"detect|find|demonstrate|appreciate|visuali[sz]e)\b|\b(?:arti?e?fact\w*|vessels?|structures?) (?:simulat\w+|"
    r"mimick?\w+|resembl\w+|mistaken for)\b|^what (?:was|were|had been|has been|is) (?:[\w ]{0,20} )?"
    r"(?:thought|believed|taken|considered|described|reported|interpreted|called|labelled) (?:to be |as |for )?|"
    r"^(?:had there been|were there(?: to be)?|were (?=(?:an?|the|any) [^.;]{1,40} to be)|"
    r"if there (?:were|had been))\b|"
    r"\b(?:status post|s/p|after|following) (?:\w+ )?(?:removal|resection|repair|excision|drainage|evacuation|"
    r"correction) of\b"
)
_DOUBT_BEFORE = (
    r"\b(?:thought|felt|believed|presumed|judged|considered) (?:\w+ ){0,2}to (?:be|reflect|represent)\b|"
    r"^were (?:this|it|these|they)\b|"
    r"\bin all (?:likelihood|probability)\b|\blikelihood of\b|"
    r"\b(?:to|possible|impossible to|excluding|exclusion of) (?:exclude|rule out)\b|\bexcluding\b|"
    r"\b(?:some |little |slight )?doubt (?:about|regarding|as to|concerning)\b|\bquestion ?:|\bwould\b|\bunless\b|"
    r"\bin (?:the event|case) of\b|\b(?:distinguish\w*|differentiat\w+|separat\w+|tell) (?:\w+ )?(?:from|apart)\b|"
    r"\b(?:may|might|could) (?:obscure|hide|mask|simulate|mimic)\b|\beither\b(?! (?:side|lung|lobe|base|apex|"
    r"hemi|of))|"
    r"\bcannot be (?:distinguished|differentiated|separated) from\b|"
    r"\bpossibl[ey]\b|\bpossibility of\b|\bprobabl[ey]\b|(?<!un)\blikely\b|\bsuspicious for\b|"
    r"\bsuspect(?:ed|s)?\b|\bsuspicion (?:of|for)\b|\bconcern(?:ing)? (?:for|of)\b|\bquestion(?:able| of|"
    r"ed)?\b|\bmay\b|\bmight\b|\bcould\b|\b(?:cannot|can not|can['\u2019]t|could not) (?:\w+ly )?(?:exclude|"
    r"rule out)\b"
    r"|\bnot (?:\w+ly )?(?:exclude|rule out)\b|\b(?:difficult|hard) to (?:exclude|rule out)\b|\bversus\b|\bvs\b|"
    r"\bdifferential\b|\bsuggest(?:s|ive|ing|ed)?\b|\brule out\b|\br/o\b|\bevaluate for\b|"
    r"\bassess for\b|\bequivocal\b|\bindeterminate for\b|\bpotential(?:ly)?\b|\bpresumed\b|\bpresumably\b|"
    r"\bworrisome for\b|\bwhether\b|\bunclear if\b|\b(?:un)?certain (?:if|for)\b|^should (?:an?|the|any|"
    r"there)\b|\bperhaps\b"
    r"|(?<!in )\bfavou?r(?:s|ed|ing)?\b|\?|\bif\b|\bunlikely\b|\bless likely\b|\bdoubtful\b|"
    r"\bshould be (?:considered|excluded)\b|\bapparent\b|\braises? the (?:possibility|question)\b|"
    r"\bcompatible with either\b"
)
_AUX = r"(?:is|are|was|were|has been|have been|has|have|can be|could be)"
_DENIED_AFTER = re.compile(
    r"^ (?:is|are|was|were) (?:within|in) (?:the )?(?:normal|physiolog\w+) (?:limits?|range|amounts?)\b|"
    r"\bwithout (?:\w+ )?recurrence\b|\b(?:was|were|been) (?:pulled|extracted|discontinued)\b|"
    r"^-free\b|\b(?:has|have|is|are|was|were) (?:now |since |been |completely |fully |entirely )*(?:reabsorbed|"
    r"resorbed|"
    r"re-?expanded|abated|dissipated|healed|come out|been taken out|dissolved)\b|"
    r"^[ ,]*(?:(?:which |it |this |they )?(?:is|are|was|were|has|have|had)? ?(?:now|since|subsequently|meanwhile|"
    r"entirely|completely|fully) )+(?:been )?(?:resolved|cleared|gone|removed|absent|disappeared)\b|"
    r"^ (?:is |are |was |were |has been |have been |now )*(?:out|withdrawn|explanted)\b(?! (?:of|to|in))|"
    r"^ ?: none\b|\b(?:has|have|had|did) not (?:recur|returned|return|reappeared|developed|occurred)|"
    r"\b(?:can|may|could) (?:now |therefore |safely |confidently |reliably )*be (?:\w+ly )?(?:excluded|ruled out)\b|"
    rf"\b(?:is|are|was|were) (?:all |both |each |also |likewise )*(?:not {_SEEN}|absent|excluded)\b(?!{PRIOR})|"
    rf"\b(?:{_AUX} ?(?:not|no longer|never)|(?:is|are|was|were|has|have)n['\u2019]t|"
    rf"no longer)(?: \w+ly)?(?: been| be)? ?"
    rf"(?:definite\w* |clearly |a )?(?:{_SEEN}|feature|finding|enlarged|thickened|dilated)\b(?!{PRIOR})|"
    rf"\b(?:is|are|was|were|has|have)(?: been| now| completely| since| interval\w*| entirely| fully)* (?:absent|"
    rf"excluded|ruled out|resolved|cleared|removed|disappeared|subsided|vanished|gone|"
    rf"regressed completely)\b(?!{PRIOR})"
    rf"|\b(?:cannot|can not|could not|can['\u2019]t) be (?:\w+ly )?(?:seen|identified|visuali[sz]ed|detected|"
    rf"demonstrated|found|discerned)\b(?!{PRIOR})|^[\w ]{{0,12}}(?:: ?| - |\? ?)(?:no\b|none|negative|absent|nil|"
    rf"not (?:{_SEEN}))|"
    rf"\b(?:is|are|was|were) (?:negative|unlikely to be present|neither(?! (?:\w+ly )?(?:increas|decreas|larg|"
    rf"small|new|grow|enlarg|better|wors|"
    r"progress|chang|calcif|enhanc|cavit|loculat|specul)))\b|"
    rf"^[ ,]*(?:resolved|removed|absent|not (?:seen|identified|present|observed|detected|visuali[sz]ed)|"
    rf"none)\b(?!{PRIOR})"
)
_DOUBT_AFTER = re.compile(
    r"\b(?:difficult|hard|impossible|not possible) to (?:exclude|rule out|separate|distinguish|differentiate|"
    r"tell|confirm)\b|"
    r"\bwould be difficult\b|"
    r"\b(?:less|more) likely\b|\bbe (?:missed|overlooked|obscured|hidden)\b|\b(?:is|are) (?:a )?possib\w+\b|"
    r"\b(?:is|are|was|were) (?:only |also |merely |strongly )*(?:suspected|raised|considered|debatable|"
    r"conceivable)\b|"
    r"^[ ,]*(?:possible|probable|likely|questionable|equivocal|uncertain|doubtful)\b(?! \w)|"
    r"^[ ,]*if (?:any|at all|real|genuine|it|they|this)\b|^[ ,]*if present\b(?![^.;]* is )|\b(?:cannot|can not|"
    r"can['\u2019]t|"
    r"could not) "
    r"be (?:\w+ly )?(?:told|distinguished|differentiated|separated|discriminated|confirmed)\b(?! by)|"
    r"\b(?:is|are) (?:also )?(?:in|on|among) the (?:list|differential)|"
    r"\b(?:cannot|can not|can['\u2019]t|could not) be (?:\w+ly |completely )*(?:excluded|ruled out|dismissed|"
    r"discounted)\b|"
    r"\bnot (?:be )?(?:\w+ly )?(?:excluded|ruled out)\b|\b(?:is|are|was|were) (?:suspected|"
    r"possible|likely|probable|questioned|questionable|unlikely|favou?red|not certain|uncertain|equivocal|doubtful|"
    r"(?:difficult|hard|impossible) to exclude|less likely|in question|in the differential)\b"
    r"|\b(?:may|might|could) be (?:present|considered|seen)\b|\bversus\b|\bvs\b|^ ?\?|"
    r"\bshould be (?:considered|excluded)\b|\bto be (?:considered|excluded)\b|\bsuspected$|\bsuspected[.,]|"
    r"\bunlikely\b|\bimprobable\b|\bdifferential\b|\bin the differential\b|"
    r"\b(?:is|are|was|were) (?:not well|poorly|not clearly|not optimally|suboptimally) (?:seen|visuali[sz]ed|"
    r"evaluated|demonstrated|assessed)\b"
)
_UNASSESSED_AFTER = re.compile(
    r"\b(?:cannot|can not|could not|can['\u2019]t) be (?:\w+ly )?(?:assessed|evaluated|judged|commented|"
    r"determined)\b|"
    r"\b(?:is|are|was|were) (?:not (?:assessed|evaluated|evaluable|assessable)|non-?diagnostic|"
    r"(?:severely |markedly )?(?:limited|suboptimal|degraded|precluded))\b"
)
_UNASSESSED_BEFORE = re.compile(
    r"\b(?:evaluation|assessment|detection|sensitivity|characteri[sz]ation|exclusion|screening|"
    r"surveillance) (?:of|for) (?:[\w-]+ ){0,4}$"
)
_STATE = (
    r"(?:unchanged|stable|present|again|still|increased|decreased|new|newly|similar|larger|smaller|mildly|"
    r"moderately|slightly|severely|markedly|enlarged|thickened|dilated|calcified|worse|improved|visible|prominent)"
)
_ENDS = re.compile(
    r";|\bbut\b|\bhowever\b|\balthough\b|\bthough\b|\bexcept(?:ing)?\b|\bapart from\b|"
    r"\bother than\b|\baside from\b|\bbesides\b|\byet\b|\bwith the exception\b|\bsecondary to\b|"
    r"\bdue to\b|\bbecause\b|\bwhereas\b|\bwhile\b|\bnevertheless\b|\bdespite\b|\bin spite of\b|\bnotwithstanding\b|"
    r"\bonly\b(?= (?:an?|some|mild|minimal|minor|small|trace|the|slight|subtle|few|tiny|known|old)\b)|"
    r"(?<=\w )(?:after|following|since)\b(?! (?:(?:the )?(?:\w+ )?(?:removal|resection|repair|excision|drainage|"
    r"evacuation|correction) of))|"
    rf"\bthere (?:is|are|was|were|has|have)\b|\bon the other hand\b|(?:is|are|was|"
    rf"were) {_SEEN}(?:,| and| with| where| while| in the setting)|\bwhich\b|:|"
    r"(?:\band|,) (?:and )?(?=(?:the|both|this|these|its|an?) (?:[\w-]+ ){1,5}(?:is|are|was|were|shows?|has|have|"
    r"contains?|demonstrates?|remains?|persists?|appears?)\b)|"
    rf"(?:\band|,) (?:and )?(?=(?:(?!no\b|or\b|and\b)[\w-]+ ){{1,4}}(?:(?:is|are|was|were|appears?|"
    rf"remains?) {_STATE}|"
    r"remains?|persists?|has (?:increased|decreased)|have (?:increased|decreased))\b)"
)
_DEGREE = (
    r"(?:a|an|mild|mildly|moderate|severe|marked|small|large|trace|minimal|minor|multiple|few|several|some|"
    r"scattered|stable|unchanged|diffuse|extensive|bilateral|patchy|new|increased|there|again|old|tiny|"
    r"known|persistent|significant|numerous|subtle|prominent|slight|residual|chronic|bibasal|bibasilar|dependent|"
    r"mainly|predominantly|now|early)"
)
_END_CLAUSE = re.compile(rf"(?:,(?: and| with)?|\band|\bwith) {_DEGREE}\b")
_CUES = re.compile(f"(?P<doubt>{_DOUBT_BEFORE})|(?P<denied>{_DENIED_BEFORE})")
_MORE = re.compile(r"\b(?:or|nor)\b")
_ASIDE = re.compile(r"^[\w ]{0,30}, (?:which|that) [^,;]{1,90},")
_STATED_AFTER = re.compile(
    r"^[\w ,]{0,60}\b(?:and|,) "
    + _DEGREE
    + r"\b|^ [^,;]*\b(?:in|at|on|within|measuring|of \d)\b [^,;]*, (?!and |or |nor |\d|(?:is|are|was|were|has|"
    r"have|can|which|that|now|"
    r"not|no)\b)"
)
_STATED_BEFORE = re.compile(
    r"(?:^|, |\band |\bwith )(?:an? )?(?:mild|moderate|severe|small|large|trace|minimal|minor|stable|unchanged|"
    r"persistent|tiny)(?: [\w-]+){0,2} $"
)
# `no suspicion of X`, `nothing to suggest X`: the denial is of the sign that the doubt names
_OF_A_SIGN = re.compile(
    r"\b(?:suggest\w*|suspicious|suspect\w*|suspicion|concern\w*|worrisome|favou?r\w*|question\w*|possibility|"
    r"rais\w+|"
    r"indicat\w+|likely|probabl\w+|compatible|apparent|could|might|may)\b"
)
_NO_SIGN = re.compile(r"^(?:(?!\b(?:but|and|or)\b)[^,;:.]){0,60}$")
# `no gas within the X`, `none of the Xs`: what is named as known is there, whatever is denied of it
_KNOWN = re.compile(
    r"\b(?:within|inside|around|adjacent to|near|along|surrounding|beside|beneath|behind|below|above|abutting|"
    r"in|from|to|"
    r"of|by|with|between) (?:the|this|that|these|those|its|their) (?:(?!(?:an?|any|is|are|has|have|contains?|"
    r"shows?)\b)"
    r"[\w-]+ ){0,3}$"
)
_OF_A_TRACE = re.compile(
    r"\b(?:evidence|signs?|traces?|indication|residual\w*|remnants?|remains|visuali[sz]ation|recurrence|presence|"
    r"suggestion|suspicion|persistence|resolution|clearing|removal|(?:re)?section|repair|excision|"
    r"drainage|free|clear|devoid) (?:of|from) (?:the|this|that|these|those) (?:[\w-]+ ){0,3}$|"
    r"\bin the (?:[\w-]+ ){0,3}$(?<=lung )|^ ?(?:the|this|these) (?:[\w-]+ ){0,3}$"
)
# `do not think that there is`: what is said of is the clause that follows
_COMPLEMENT = re.compile(r"(?: (?!and\b|with\b|or\b)\w+){0,2} there (?:is|are|was|were)\b(?<!,)")
_DEFINITE = re.compile(r"^ (?:the|this|these|that|those) (?:[\w-]+ ){0,3}$")
_NONE_OF = re.compile(
    r"\b(?:none|neither|not one) of (?:the|these|those|his|her) (?:(?!(?:an?|any|is|are|has|have|"
    r"\w+s)\b)[\w-]+ ){0,3}$"
)
_EVENT = re.compile(
    r"^(?: \w+)? (?:migration|malposition\w*|kinking|leak(?:age)?|displacement|occlusion|complications?|"
    r"cavitation|growth|"
    r"progression|enlargement|dysfunction|fragmentation|disconnection|dislodge\w*|discontinuity|loculation|"
    r"rupture|related|associated|infection|increase|thrombosis|stenosis)\b"
)
_ELLIPSIS = re.compile(
    r"[;,.] (?:but )?(?:(?:today.s |the |this )?(?:ct|study|examination|scan|imaging)) (?:does|did) not (?:bear|"
    r"confirm|support|"
    r"corroborate|substantiate|show) (?:this|it|that)\b|"
    r"(?:,|;|\bbut|\band|\bhowever,?|\bthough|\balthough|\. ) ?(?:but |and |which |that |now |today |currently |"
    r"however,? )*"
    r"(?:it |they |this |these |such a thing |one |the (?:former|latter|same|finding) )?(?:(?:is|are|was|were|"
    r"has|have|had|"
    r"can|could) (?:now |since |today |currently )*)?(?:(?:not|no longer|never|n't)(?: \w+ly)?(?: been| be)?"
    rf" {_SEEN}|cannot be {_SEEN}|none (?:(?:is|are|was|were|has been|could be|can be) )?(?:\w+ly )?{_SEEN}|"
    r"(?:has|have|is|are) (?:now |since |completely |fully |entirely )*(?:resolved|cleared|gone|disappeared|"
    rf"vanished|reabsorbed|resorbed|healed))\b(?!{PRIOR})|"
    r"(?:,|\band|\bbut|;) (?:none|nothing|no trace) (?:now |of it )?(?:remains?|persists?|is left|was left|"
    r"is there)\b"
)
_UNREAL = re.compile(r"\b(?:would|might|could|should)\b")
_REVISED = re.compile(
    r"^ (?:in question |on the (?:prior|previous|earlier) \w+ |\w+ )?(?:is|was|are|were|represents?|represented|"
    r"corresponds? to|corresponded to|proves? to be|proved to be|turns? out to be|"
    r"turned out to be|is (?:actually|in fact|merely|just)|was (?:actually|in fact|merely|just)|is shown to be) "
    r"(?:merely |only |actually |in fact |just )?(?:an? |the )?(?:\w+ ){0,3}(?:vessels?|arti?e?facts?|nipple|rib|fat|"
    r"summation|shadow|averaging|mucus|cartilage|fold|bone|osteophyte|fissure|vein|artery)\b"
)
# `has cleared on the right but not on the left`
_PARTLY = re.compile(
    r"\b(?:but|yet|though) (?:it |they )?(?:not (?:on|in|at)|persists?|lingers?|remains?|still)\b"
)
# `no new X; the old one is stable`
_OLD_ONE = re.compile(
    r"^[^.]{0,20}[;,]? (?:but |and |with )?(?:the|an?) (?:[\w-]+ ){0,3}ones? (?:is|are|remains?|has|have|on|in|at)\b"
)
_EXCEPTION = re.compile(
    r",? (?:except(?:ing)?(?: for)?|with the exception of|other than|apart from|aside from) (?:an?|one|two|some|"
    r"several|\d) ?"
    r"[^.;]{1,60}"
)
_EXPECTED = re.compile(r"\bwould (?:have )?(?:be |been )?(?:expect\w*|anticipat\w+)\b[^.;]*$")
_YET = re.compile(r"\b(?:yet|but|however)\b[^.;]*\b(?:clear|none|no|not|normal)\b")
_KIN = re.compile(
    r"\b(?:family history|familial history|mother|father|brother|sister|sibling|son|daughter|aunt|uncle|cousin|"
    r"grand(?:mother|father)|relatives?|parents?|husband|wife|spouse)\b(?: \(?[\w ]{0,20}\)?)?"
    r"(?: (?:had|has|with|of|for|died|suffer\w*|includes?)\b|:)[^.;]*$"
)
_LIMITED = re.compile(
    r"\b(?:limit(?:ed|s|ing)|suboptimal|poor|reduced|precludes?|degrad\w+|impair\w+|hampers?|restricts?|"
    r"non-?diagnostic|"
    r"insensitive|inadequate) (?:\w+ ){0,2}(?:evaluation|assessment|detection|sensitivity|characteri[sz]ation|"
    r"exclusion|visuali[sz]ation|for)(?: (?:of|for))? (?:[\w-]+ ){0,4}$|"
    r"\b(?:search|screening|surveillance|evaluat\w+|assess\w*|study|scan) for (?:[\w-]+ ){0,4}$"
)
_EARLIER = re.compile(
    r"\b(?:prior|previous|earlier|last|preceding|old|initial|baseline|comparison)(?: \w+){0,2},? (?:(?:which|"
    r"that|where) )?"
    r"(?:had )?(?:show(?:ed|n)|demonstrated|revealed|contained|had|depicted|described) (?:[\w-]+ ){0,4}$"
)
_CLEARED = re.compile(
    r"[,;] (?:and |but )?(?:today |now |currently )?(?:the |both |these )?(?:[\w-]+ ){0,3}(?:(?:is|"
    r"are) (?:now )?(?:clear|"
    r"normal|resolved|gone|no longer|not)|has (?:resolved|cleared)|have (?:resolved|cleared))\b"
)
_THING = (
    r"(?:atelecta\w+|consolidat\w+|opacit\w+|scar(?:s|ring)?|infiltrat\w+|pneumonia|nodul\w+|effusions?|thickening|"
    r"fibro\w+|mass(?:es)?|o?edema|emphysema|cysts?|bronchiecta\w+|granulom\w+|lymph ?nodes?|vessels?|haemorrhage|"
    r"hemorrhage|infection|aspiration|artefact|artifact|bullae?)"
)
_EITHER_OR = re.compile(rf"^(?: changes?)?,? (?:and/or|or) (?:[\w-]+ ){{0,3}}{_THING}\b|^ ?/ ?{_THING}\b")
_OR_ELSE = re.compile(rf"\b{_THING}(?: changes?)?,? (?:and/or|or) (?:[\w-]+ ){{0,3}}$")
# a clause without any of these cannot match the pattern of the name
_UNASSESSED_STEMS = re.compile(r"not|n't|n\u2019t|limited|suboptimal|degraded|precluded|diagnostic")
_DENIED_STEMS = re.compile(
    r"not|n't|n\u2019t|never|longer|absent|exclud|ruled|resolv|clear|remov|gone|disappear|subsid|vanish|"
    r"regress|negativ|neither|none|nil|expan|sorb|abat|dissip|heal|come|dissol|free|normal|physiol|"
    r"recurrence|pulled|extract|discontin|out|withdrawn|explant|: no|:no|- no|\? no|\?no"
)
_DOUBT_STEMS = re.compile(
    r"distinguish|differentiat|separat|discriminat|confirm|"
    r"exclud|ruled|suspect|possib|likely|probab|question|favo|certain|equivoc|doubt|differential|may|"
    r"might|could|versus|vs|\?|consider|well|poor|clearly|optimal|difficult|hard|missed|obscur|overlook|"
    r"hidden|raised|debatable|conceivable|if|list|to"
)


@lru_cache(maxsize=2048)
def _cues(sentence: str) -> tuple[tuple[int, int, str], ...]:
    return tuple(
        (m.start(), m.end(), ABSENT if m["denied"] is not None else UNCERTAIN)
        for m in _CUES.finditer(sentence)
    )


@lru_cache(maxsize=4096)
def assertion(sentence: str, start: int, end: int) -> str:
    """`present`, `absent` or `uncertain` for the mention `[start, end)` of a sentence in lower case.

    `not_assessed` where the sentence only says that it could not be judged, or speaks of a relative.
    """
    before = sentence[max(0, start - 200) : start]
    if _KIN.search(before) or _LIMITED.search(before):
        return UNASSESSED
    cues = _cues(sentence)
    denied = _by_cue_before(sentence, start, end, cues)
    said = _by_words_after(sentence, before, start, end, denied)
    if said is not None:
        return said
    if denied is not None:
        return denied
    either = _EITHER_OR.match(sentence, end) or _EITHER_OR.match(sentence[end : end + 80])
    if (either or _OR_ELSE.search(before)) and "no " not in before:
        return UNCERTAIN
    return PRESENT


def _by_words_after(sentence: str, before: str, start: int, end: int, denied: str | None) -> str | None:
    """What follows a mention in its clause, or in the next one that has no subject of its own; None: nothing."""
    whole = sentence[end : end + 220]
    after = _ASIDE.sub(",", whole[:200], count=1)[:160]
    clause = _until_end(sentence, end, after)
    if (
        _UNASSESSED_STEMS.search(clause)
        and _UNASSESSED_AFTER.search(clause)
        and (not _END_CLAUSE.search(clause) or _UNASSESSED_BEFORE.search(before))
    ):
        return UNASSESSED
    if (
        _DENIED_STEMS.search(clause)
        and (found := _DENIED_AFTER.search(clause))
        and not _STATED_AFTER.match(clause[: found.end()])
        and not ("," in clause[: found.start()] and _STATED_BEFORE.search(before))
    ):
        return PRESENT if _PARTLY.search(whole) else ABSENT
    if denied != ABSENT and (
        _REVISED.match(whole)
        or (_EARLIER.search(before) and _CLEARED.search(whole))
        or (_EXPECTED.search(before) and _YET.search(whole))
    ):
        return ABSENT
    if (
        denied == ABSENT
        and (except_for := _EXCEPTION.match(whole))
        and sentence[end - 5 : end - 1] in except_for.group()
    ):
        return PRESENT
    if denied == ABSENT and _OLD_ONE.search(whole):
        return PRESENT
    if (
        len(whole) > len(clause) - 3
        and (gone := _ELLIPSIS.search(whole))
        and _same_subject(whole[: gone.start()])
    ):
        return ABSENT
    if _DOUBT_STEMS.search(clause) and (doubt := _DOUBT_AFTER.search(clause)):
        return denied if denied == ABSENT and _OF_A_SIGN.search(doubt.group()) else UNCERTAIN
    if denied is None and _UNREAL.match(clause.lstrip()):
        return UNCERTAIN
    return None


def _until_end(sentence: str, end: int, after: str) -> str:
    """The rest of a mention's clause."""
    stop = _ENDS.search(after)
    return after[: stop.start()] if stop and stop.group() != ":" else after


_OTHER_SUBJECT = re.compile(rf"(?:;|\bbut\b|\band\b|,)[^,;]*\b{_THING}\b")


def _same_subject(between: str) -> bool:
    """Whether nothing else is named between a mention and a denial that has no subject."""
    return not _OTHER_SUBJECT.search(between)


def _by_cue_before(sentence: str, start: int, end: int, cues: tuple[tuple[int, int, str], ...]) -> str | None:
    """The nearest cue before a mention whose scope reaches it; None where there is none."""
    for number in range(bisect_left(cues, (start,)) - 1, -1, -1):
        begin, finish, status = cues[number]
        if finish > start:
            if begin < start < finish:
                return status
            continue
        between = sentence[finish:start]
        if len(between) > 240 or _ended(sentence, begin, finish, start):
            break
        if status == ABSENT:
            if not _reaches(sentence, begin, finish, start, end, between):
                break
        else:
            if between.count(",") > 1:
                break
            if sentence[begin:finish] in ("if", "unless") and _DEFINITE.match(between):
                break
            if _denied_sign(sentence, cues, number):
                return ABSENT
        return status
    return None


def _ended(sentence: str, begin: int, finish: int, start: int) -> bool:
    """Whether a clause ends between a cue and the mention at `start`."""
    if told := _COMPLEMENT.match(sentence, finish):
        finish = told.end()
    stop = _ENDS.search(sentence, finish, start + 80)
    return stop is not None and stop.start() < start


def _reaches(sentence: str, begin: int, finish: int, start: int, end: int, between: str) -> bool:
    """Whether a denial that ends at `finish` denies the mention, not a thing beside it, in it or that befalls it."""
    breaks = _END_CLAUSE.search(between)
    if breaks and not _MORE.search(sentence[finish + breaks.start() : end + 60].partition(";")[0]):
        return False
    if _EVENT.match(sentence[end : end + 40]):
        return False
    if _KNOWN.search(between) and not _OF_A_TRACE.search(between):
        return False
    if _NONE_OF.search(sentence[max(0, start - 80) : start]):
        return bool(re.match(rf" (?:\w+ )*?{_SEEN}\b", sentence[end : end + 40]))
    return True


def _denied_sign(sentence: str, cues: tuple[tuple[int, int, str], ...], number: int) -> bool:
    """Whether a doubt is itself denied (`nothing to suggest X`, `no suspicion of X`)."""
    begin, finish, _ = cues[number]
    if not number or not _OF_A_SIGN.search(sentence[begin:finish]):
        return False
    _, earlier, status = cues[number - 1]
    return (
        status == ABSENT
        and bool(_NO_SIGN.match(sentence[earlier:begin]))
        and not _ENDS.search(sentence[earlier:begin])
    )
