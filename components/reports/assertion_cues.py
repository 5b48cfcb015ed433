"""What denies, doubts or ends a clause: patterns over a sentence in lower case, for `assertion.py`.

Written for this project; the categories are those of NegEx and ConText (Chapman 2001, Harkema 2009).
"""

from __future__ import annotations

import re

# no cue begins within a word: said once, so that not every alternative is tried at every letter
NOT_WITHIN = r"(?!(?<=\w)\w)"
NO_CHANGE = (
    r"(?:(?:(?!(?:and|or|nor|with|but|in|cystic|nodular|degenerative|calcific|inflammatory|bullous|fibrous|"
    r"consolidative|infiltrative|ground-glass|glass|interstitial|\w+(?:matous|otic|atic|ctic|"
    r"ular))\b)[\w-]+ ){0,3}(?:change|increase|decrease|progression|growth|enlargement (?:of|"
    r"in)(?! (?:the |any )?(?:heart|cardi\w+|lymph|mediastinal|hilar|\w+ atri|left|right))|deterioration|"
    r"reduction|alteration|difference|worsening|improvement|doubt|resolution|regression|(?:more|"
    r"worse) than)\b|longer\b(?! (?:any|an?|evidence|shows?|showing|demonstrat\w+|seen|see|visible)\b))"
)
PRIOR = (
    r" (?:on|in|at|during|as of) (?:the |an? |any |his |her )?(?:\[date\]|(?:most )?(?:prior|previous|"
    r"earlier|last|preceding|comparison|older?|outside|initial|baseline|past|recent prior)\b|(?:19|"
    r"20)\d\d\b|\d{1,2}[/.-]\d|(?:\d{1,2} )?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b)|"
    r" previously| before\b| earlier\b| then\b| yesterday\b| last (?:week|month|year|night)\b|"
    r" (?:[\w]+ ){1,2}(?:hours?|days?|weeks?|months?|years?) (?:ago|before|earlier|previously)\b| (?:on|in|"
    r"at) (?:the |an? )?(?:\w+ )?(?:radiographs?|films?|ct|scan|study|exam\w*|images) (?:from|of|dated|"
    r"performed|obtained)\b"
)
SEEN = (
    r"(?:seen|identified|present|observed|detected|visuali[sz]ed|noted|evident|appreciated|demonstrated|"
    r"found|visible|apparent|shown|recogni[sz]ed|depicted|encountered|revealed|displayed|discernible|"
    r"discerned|documented|monitored|noticed|elicited|confirmed|verified|substantiated|established|"
    r"reproduced|proven|disclosed|imaged|delineated|perceived|perceptible|appreciable|detectable|made out|"
    r"borne out)"
)
DENIED_BEFORE = (
    rf"(?:^|[.;] ?)(?:not {SEEN}|absent|negatives?|none) ?:|\bno\b(?! {NO_CHANGE})|\bnot\b(?! (?:only|"
    rf"excluded?|ruled out|(?:significantly |completely |entirely |fully |substantially )?(?:changed|"
    rf"different|resolved|cleared|improved|decreased|increased)|be (?:excluded|ruled out)|certain|likely|"
    rf"clear|exclude|rule out|necessarily|without|adequately|well\b|optimal\w*|definitely excluded|"
    rf"un\w+(?:ed|al|mon|ing)\b|infrequent\w*|surprising\w*|atypical\w*|only\b|entirely exclude))|\b(?:is|"
    rf"are|was|were|do|does|did|has|have)n['\u2019]t\b(?! (?:exclude|rule out|resolved|changed))|"
    rf"\bwithout\b(?! {NO_CHANGE})|\bwith no\b(?! {NO_CHANGE})|\babsence of\b|\bnowhere\b|\b(?:falls? |"
    rf"fell |stops? )?short of\b|\bspar(?:es|ing)\b|"
    r"\bpreviously (?:repaired|resected|removed|excised|drained)\b|\bnegative (?:\w+ )?for\b|"
    rf"\bfree (?:of|from)\b|\bclear of\b|\bdevoid of\b|\black(?:s|ing)? (?:of )?|\bdenie[sd]\b|\bdenying\b|"
    rf"\brather than\b|\binstead of\b|\bneither\b|\bnor\b|\bunremarkable for\b|\bargues? against\b|"
    rf"\babsent\b(?! (?:on|in|at))"
    r"|\b(?:has|have) been (?:ruled out|excluded)\b|\bexcludes?\b|\brules? out\b(?=[^.]{0,6}$)|"
    r"\bresolution of\b|\bcomplete (?:regression|disappearance|clearance) (?:(?:is|was) (?:\w+ )?)?(?:of|"
    r"in)\b|\bresolved\b|\bfail(?:s|ed|ing)? to\b|\bnone of\b|\bnever\b|\binterval (?:clearing|"
    r"removal) of\b|(?:^|\brecently |\bnow )(?:removed|cleared)\b|\bremoval of\b|"
    r"\bnon-?visuali[sz]ation of\b|\bnothing\b|\b(?:cannot|can not|could not|unable to) (?:\w+ly "
    r")?(?:identify|see|detect|find|demonstrate|appreciate|visuali[sz]e)\b|\b(?:arti?e?fact\w*|vessels?|"
    r"structures?) (?:simulat\w+|mimick?\w+|resembl\w+|mistaken for)\b|^what (?:was|were|had been|has been|"
    r"is) (?:[\w ]{0,20} )?(?:thought|believed|taken|considered|described|reported|interpreted|called|"
    r"labelled) (?:to be |as |for )?|^(?:had there been|were there(?: to be)?|were (?=(?:an?|the|"
    r"any) [^.;]{1,40} to be)|if there (?:were|had been))\b|\b(?:status post|s/p|after|"
    r"following) (?:\w+ )?(?:removal|resection|repair|excision|drainage|evacuation|correction) of\b"
)
# `likely benign X`: the adverb is of the adjective
ADVERB = re.compile(
    r"^(?:(?:most )?likely|(?:un|most )?probably|possibly|potentially|presumed|presumably|perhaps|"
    r"suspected)$"
)
OF_ITS_KIND = re.compile(
    r"^ (?:benign|malignant|metastatic|neoplastic|reactive|infectious|infective|(?:post|para)-?\w+|"
    r"inflammatory|chronic|acute|old|new|physiologic(?:al)?|congenital|degenerative|granulomatous|"
    r"traumatic|h[a]?emorrhagic|necrotic|cavitary|loculated|calcified|[a-z]+-related|iatrogenic|enlarging|"
    r"growing|unchanged|stable|incidental)\b"
)
# `given suspected pneumonia, the X is ...`
MAIN_CLAUSE = re.compile(r", (?:the|this|these|those) (?:[\w-]+ ){0,3}$")
# `status post X repair`
DONE_BEFORE = re.compile(
    r"\bpost-?(?:surgical|operative) \w+ (?:of|from|related to)(?: [\w-]+){0,3} $|\b(?:status post|post|"
    r"prior|previous|after|following|history of|interval|underwent|since|remote|old)(?: [\w-]+){0,3} $"
)
DONE_AFTER = re.compile(r"^ (?:repair|resection|excision|drainage|evacuation|ablation)\b")
# what a `consider` advises, where it doubts nothing
CARE = (
    r"(?:[\w-]+ ){0,4}(?:follow|ct|pet|mri|imaging|biopsy|correlation|comparison|short|repeat|dedicated|"
    r"evaluation|surveillance|sampling|bronchoscopy|thoracentesis|referral|drainage|treatment|therapy)"
)
DOUBT_BEFORE = (
    r"\b(?:thought|felt|believed|presumed|judged|considered) (?:\w+ ){0,2}to (?:be|reflect|represent)\b|"
    r"^were (?:this|it|these|they)\b|\bin all (?:likelihood|probability)\b|\b(?:likelihood|probability|"
    r"suggestion) of\b|\b(?:appears?|seems?) to (?:be|represent|reflect|indicate)\b|\bconceivabl[ey]\b|"
    r"\b(?:i|we) (?:think|believe|feel|doubt)\b|\bsuspicious (?:(?:appearance|area|finding|"
    r"lesion)s? )?in terms of\b|\bborderline for\b|"
    rf"\bconsiderations? (?:\w+ )?(?:include|are|is|of|would be)\b|\bconsider(?:ed|ing)?\b(?! {CARE})|"
    r"\bcan (?:also )?(?:be (?:seen|found|associated) (?:with|in)|be (?:due|related) to|represent|reflect|"
    r"indicate|mimic|simulate|occur|result)\b|\b(?:often|commonly|typically|frequently|sometimes|"
    r"classically) (?:seen|associated|found) (?:with|in)\b|^exclude\b|^not excluded ?:|\b(?:correlation|"
    r"correlate clinically|^correlate) (?:\w+ ){0,2}for\b|\bplausibl[ey]\b|\bin keeping with possible\b|"
    r"\b(?:to|possible|impossible to|excluding|exclusion of) (?:exclude|rule out)\b|\bexcluding\b|"
    r"\b(?:some |little |slight )?doubt (?:about|regarding|as to|concerning)\b|\bquestion ?:|\bwould\b|"
    r"\bunless\b|\bin (?:the event|case) of\b|\b(?:distinguish\w*|differentiat\w+|separat\w+|"
    r"tell) (?:\w+ )?(?:from|apart)\b|\b(?:may|might|could) (?:obscure|hide|mask|simulate|mimic)\b|"
    r"\beither\b(?! (?:side|lung|lobe|base|apex|hemi|of))|\bcannot be (?:distinguished|differentiated|"
    r"separated) from\b|\bpossibl[ey]\b|\bpossibility of\b|\bprobabl[ey]\b|(?<!un)\blikely\b|"
    r"\bsuspicious for\b|\bsuspect(?:ed|s)?\b|\bsuspicion (?:of|for)\b|\bconcern(?:ing)? (?:for|of)\b|"
    r"\bquestion(?:able| of|ed)?\b|\bmay\b|\bmight\b|\bcould\b|\b(?:cannot|can not|can['\u2019]t|"
    r"could not) (?:\w+ly )?(?:exclude|rule out)\b|\bnot (?:\w+ly )?(?:exclude|rule out)\b|\b(?:difficult|"
    r"hard) to (?:exclude|rule out)\b|\bversus\b|\bvs\b|\bdifferential\b|\bsuggest(?:s|ive|ing|ed)?\b|"
    r"\brule out\b|\br/o\b|\bevaluate for\b|\bassess for\b|\bequivocal\b|\bindeterminate for\b|"
    r"\bpotential(?:ly)?\b|\bpresumed\b|\bpresumably\b|\bworrisome for\b|\bwhether\b|\bunclear if\b|"
    r"\b(?:un)?certain (?:if|for)\b|^should (?:an?|any|there)\b|\bperhaps\b|(?<!in )\bfavou?r(?:s|ed|"
    r"ing)?\b|\?|\bif\b(?! (?:any|at all),? (?:\w+ )?(?:change|difference|growth))|\bunlikely\b|"
    r"\bless likely\b|\bdoubtful\b|\bshould be (?:considered|excluded)\b|\bapparent\b|"
    r"\braises? the (?:possibility|question)\b|\bcompatible with either\b"
)
AUX = r"(?:is|are|was|were|has been|have been|has|have|can be|could be)"
DENIED_AFTER = re.compile(
    rf"{NOT_WITHIN}(?:"
    r"^ (?:is|are|was|were) (?:within|in) (?:the )?(?:normal|physiolog\w+) (?:limits?|range|amounts?)\b|"
    r"^[\w ]{0,40} (?:is|was) (?:unfounded|refuted|spurious|unsubstantiated)\b|"
    r"\bwithout (?:\w+ )?recurrence\b|\b(?:was|were|been) (?:pulled|extracted|discontinued)\b|^-free\b|"
    r"\bnowhere\b|^ (?:removal|extraction|explantation|clearance)\b|\b(?:has|have|is|are|was|were) (?:now |"
    r"since |been |completely |fully |entirely )*(?:reabsorbed|drained|evacuated|resected|excised|"
    r"explanted|repaired|resorbed|re-?expanded|abated|dissipated|healed|come out|been taken out|"
    r"dissolved)\b|^[ ,]*(?:(?:which |it |this |they )?(?:is|are|was|were|has|have|had)? ?(?:now|since|"
    r"subsequently|meanwhile|entirely|completely|fully) )+(?:been )?(?:resolved|cleared|gone|removed|"
    r"absent|disappeared)\b|^ (?:is |are |was |were |has been |have been |now )*(?:out|withdrawn|"
    r"explanted)\b(?! (?:of|to|in))|^ ?: none\b|\b(?:has|have|had|did) not (?:recur(?:red)?|returned|"
    r"return|re-?accumulated|re-?formed|reaccumulate|reappeared|developed|occurred)|\b(?:can|may|"
    r"could) (?:now |therefore |safely |confidently |reliably )*be (?:\w+ly )?(?:excluded|ruled out)\b|"
    rf"\b(?:is|are|was|were) (?:all |both |each |also |likewise )*(?:not {SEEN}|absent|"
    rf"excluded)\b(?!{PRIOR})|\b(?:{AUX} ?(?:not|no longer|never)|(?:is|are|was|were|has|have)n['\u2019]t|"
    rf"no longer)(?: (?!previously)\w+ly)?(?: been| be)? ?(?:definite\w* |clearly |a )?(?:{SEEN}|feature|"
    rf"finding|(?<!has not )(?<!have not )(?:enlarged|thickened|dilated))\b(?!{PRIOR})|"
    rf"^ no longer (?:persists?|remains?|exists?)\b|\b(?:is|are|was|were|has|have|appears?|"
    rf"appears? to have)(?: been| now| since| interval| (?!near|partial|incomplet|almost|most|large|part|"
    rf"main)\w+ly)* (?:absent|excluded|ruled out|resolved|cleared|removed|disappeared|subsided|vanished|"
    rf"gone|regressed completely)\b(?!{PRIOR})|\b(?:cannot|can not|could not|can['\u2019]t) be (?:\w+ly "
    rf")?{SEEN}\b(?!{PRIOR})|^[\w ]{{0,12}}(?:: ?| - |\? ?)(?:no\b|none|negative|absent|nil|"
    rf"not (?:{SEEN}))|\b(?:is|are|was|were) (?:negative|unlikely to be present|"
    rf"neither(?! (?:\w+ly )?(?:increas|decreas|larg|small|new|grow|enlarg|better|wors|"
    r"progress|chang|calcif|enhanc|cavit|loculat|specul)))\b|"
    rf"^[ ,]*(?:resolved|removed|absent|not (?:(?!previously)\w+ly )?{SEEN}|none(?! (?:of|suspicious|"
    rf"larger|greater|enlarg\w+|measur\w+|new|chang\w+|calcif\w+|cavit\w+|over|above|"
    rf"with)\b))\b(?!{PRIOR})|"
    r"^ (?:(?:now|has|have|is|are|appears?|been) )+(?:clear|normal)\b"
    r")"
)
# `is likely reactive`, `could be infectious`: the nature is doubted, not the finding
NATURE = (
    r" (?!(?:present|seen|there|in|at|on|given|but|and|however|with|as|based|considering|under|due|not|or|"
    r"if|for|to|over)\b)[a-z]"
)
DOUBT_AFTER = re.compile(
    rf"{NOT_WITHIN}(?:"
    r"\b(?:difficult|hard|impossible|not possible) to (?:exclude|rule out|separate|distinguish|"
    r"differentiate|tell|confirm)\b|\bwould be difficult\b|^ or not\b|\b(?:less|"
    r"more) likely\b(?! (?!(?:than|given|in|due|because|based|considering|at|with|but|on|and)\b)\w)|"
    r"\bnot (?:\w+ly )?(?:favou?red|suspected|thought likely)\b|\b(?:is|are|was|were) (?:\w+ )?(?:believed|"
    r"felt|thought|presumed) (?:to be )?(?:present|likely|possible|unlikely|probable|there)\b|"
    r"\bbe (?:missed|overlooked|obscured|hidden)\b|\b(?:is|are|was|remains?|represents?) (?:also |still |"
    r"another |the |one )?(?:an? )?(?:\w+ )?(?:possib\w+|consideration|concern|question)\b|"
    rf"\b(?:is|are|was|were|has been|have been) (?:only |also |merely |strongly |again )*(?:suspected|"
    rf"suggested|questioned|raised|considered|postulated|presumed|proposed|queried|implied|hinted|"
    rf"debatable|arguable|conceivable|plausible|unconfirmed|unproven)\b(?!{NATURE})(?! to (?:be "
    rf"(?!present)|represent|reflect|indicate))|\b(?:may|might|could) not be (?:\w+ly )?{SEEN}\b|"
    r"^[ ,]*(?:possible|probable|likely|questionable|equivocal|uncertain|doubtful)\b(?! \w)|"
    r"^[ ,]*if (?:any|at all|real|genuine|it|they|this)\b|^[ ,]*if present\b(?![^.;]* is )|\b(?:cannot|"
    r"can not|can['\u2019]t|could not) be (?:\w+ly )?(?:told|distinguished|differentiated|separated|"
    r"discriminated|confirmed)\b(?! by)|\b(?:is|are) (?:also )?(?:in|on|among) the (?:list|differential)|"
    r"\b(?:cannot|can not|can['\u2019]t|could not) be (?:\w+ly |completely )*(?:excluded|ruled out|"
    r"dismissed|discounted)\b|\bnot (?:be |been )?(?:\w+ly )?(?:excluded|ruled out)\b|\b(?:is|are|was|"
    r"were) (?:"
    rf"possible(?!{NATURE})|(?:most )?likely(?!{NATURE})|probable(?!{NATURE})|questioned|questionable|"
    rf"unlikely|favou?red(?!{NATURE})(?! to (?:be|represent|reflect))|not certain|uncertain|equivocal|"
    rf"doubtful|"
    r"(?:difficult|hard|impossible) to exclude|less likely|in question|in the differential)\b|\b(?:may|"
    r"might|could) be (?:present|considered|seen|(?:\w+ly )?(?:artif\w+|artef\w+|spurious|technical)|"
    r"due to (?:an? |the )?(?:overl\w+|superimpos\w+|arte?i?f\w+|motion|technique|summation|respiratory|"
    r"expiratory))\b|\b(?:possibly|perhaps|likely|probably) (?:an? )?(?:artif\w+|artef\w+|summation|"
    r"spurious|nipple|overlying)\b|\bversus\b|\bvs\b|^ ?\?|\bshould be (?:considered|excluded)\b|"
    r"\bto be (?:considered|excluded)\b|\bsuspected$|\bsuspected[.,]|\bunlikely\b|\bimprobable\b|"
    r"\bin the differential\b|(?:\b(?:is|are|was|were)|^) (?:not well|poorly|not optimally|"
    r"suboptimally) (?:seen|visuali[sz]ed|"
    rf"evaluated|demonstrated|assessed)\b(?!{PRIOR})|^ (?:is |are )?(?:largely |partially |"
    rf"partly )?obscured\b"
    r")"
)
UNASSESSED_AFTER = re.compile(
    r"\bruns? in the family\b|\b(?:cannot|can not|could not|can['\u2019]t) be (?:\w+ly )?(?:assessed|"
    r"evaluated|judged|commented|determined)\b|\b(?:is|are|was|were) (?:not (?:assessed|evaluated|"
    r"evaluable|assessable)|non-?diagnostic|(?:severely |markedly )?(?:limited(?! to)|suboptimal|degraded|"
    r"precluded))\b"
)
UNASSESSED_BEFORE = re.compile(
    r"\b(?:evaluation|assessment|detection|sensitivity|characteri[sz]ation|exclusion|screening|"
    r"surveillance) (?:of|for) (?:[\w-]+ ){0,4}$"
)
STATE = (
    r"(?:unchanged|stable|present|again|still|increased|decreased|new|newly|similar|larger|smaller|mildly|"
    r"moderately|slightly|severely|markedly|enlarged|thickened|dilated|calcified|worse|improved|visible|"
    r"prominent)"
)
ENDS = re.compile(
    rf"{NOT_WITHIN}(?:"
    r";|(?<=\w\w)\. (?=\w)|\bwith (?=[^,;.]{1,60} (?:in place|in situ|in position|again|unchanged|stable|"
    r"still|redemonstrated)\b)|\bbut\b|\bhowever\b|\balthough\b|\bthough\b|\bexcept(?:ing)?\b|"
    r"\bapart from\b|\bother than\b|\baside from\b|\bbesides\b|\byet\b|\bwith the exception\b|"
    r"\bsecondary to\b|\bdue to\b(?! (?:an? |the )?(?:overl\w+|superimpos\w+|arte?i?f\w+|motion|technique|"
    r"summation|respiratory|expiratory)\b)|\bbecause\b|\bwhereas\b|\bwhile\b|\bnevertheless\b|\bdespite\b|"
    r"\bin spite of\b|\bnotwithstanding\b|\bonly\b(?= (?:an?|some|mild|minimal|minor|small|trace|the|"
    r"slight|subtle|few|tiny|known|old)\b)|(?<=\w )(?:after|following|since)\b(?! (?:(?:the )?(?:\w+ "
    r")?(?:removal|resection|repair|excision|drainage|evacuation|correction) of))|"
    rf"\bthere (?:is|are|was|were|has|have)\b|\bon the other hand\b|(?:is|are|was|were) {SEEN}(?:,| and|"
    rf" with| where| while| in the setting)|\bwhich\b|:|"
    r"(?:\band|,) (?:and )?(?=(?:the|both|this|these|its|an?) (?:[\w-]+ ){1,5}(?:is|are|was|were|shows?|"
    r"has|have|contains?|demonstrates?|remains?|persists?|appears?)\b)|"
    rf"(?:\band|,) (?:and )?(?=(?:(?!no\b|or\b|and\b)[\w-]+ ){{1,4}}(?:(?:is|are|was|were|appears?|"
    rf"remains?) {STATE}|"
    r"remains?|persists?|has (?:increased|decreased)|have (?:increased|decreased))\b)"
    r")"
)
DEGREE = (
    r"(?:a|an|mild|mildly|moderate|severe|marked|small|large|trace|minimal|minor|multiple|few|several|some|"
    r"scattered|stable|unchanged|diffuse|extensive|bilateral|patchy|new|increased|there|again|old|tiny|"
    r"known|persistent|significant|numerous|subtle|prominent|slight|residual|chronic|bibasal|bibasilar|"
    r"dependent|mainly|predominantly|now|early)"
)
END_CLAUSE = re.compile(rf"(?:,(?: and| with)?|\band|\bwith) {DEGREE}\b")
CUES = re.compile(f"{NOT_WITHIN}(?:(?P<doubt>{DOUBT_BEFORE})|(?P<denied>{DENIED_BEFORE}))")
MORE = re.compile(r"\b(?:or|nor)\b")
ASIDE = re.compile(r"^[\w ]{0,30}, (?:which|that) [^,;]{1,90},")
STATED_AFTER = re.compile(
    r"^[\w ,]{0,60}\b(?:and|,) "
    + DEGREE
    + r"\b|^ [^,;]*\b(?:in|at|on|within|measuring|of \d)\b [^,;]*, (?!and |or |nor |\d|(?:is|are|was|were|has|"
    r"have|can|which|that|now|not|no)\b)"
)
STATED_BEFORE = re.compile(
    r"(?:^|, |\band |\bwith )(?:an? )?(?:mild|moderate|severe|small|large|trace|minimal|minor|stable|"
    r"unchanged|persistent|tiny)(?: [\w-]+){0,2} $"
)
# `no suspicion of X`, `nothing to suggest X`: the denial is of the sign that the doubt names
OF_A_SIGN = re.compile(
    r"\b(?:suggest\w*|thought|felt|believed|appears?|seems?|suspicious|suspect\w*|suspicion|concern\w*|"
    r"worrisome|favou?r\w*|question\w*|possibility|rais\w+|indicat\w+|likely|probabl\w+|compatible|"
    r"apparent|could|might|may)\b"
)
NO_SIGN = re.compile(r"^(?:(?!\b(?:but|and|or)\b)[^,;:.]){0,60}$|^(?:(?!\bbut\b)[^;:.]){0,90} to $")
# `no gas within the X`, `none of the Xs`: what is named as known is there, whatever is denied of it
KNOWN = re.compile(
    r"\b(?:underlying|underneath|complicating|causing|involving|overlying|superimposed on|associated with|"
    r"due to|secondary to|related to|explain|explaining|account for|accounting for|accompan\w+|abuts|"
    r"(?:considered|recommended|advised|suggested|obtained|performed|helpful|useful|indicated|warranted|"
    r"needed|required|repeated|imaging|follow-?up) (?:for|of)|(?:re)?assess(?:ing)?|evaluat(?:e|ing)|"
    r"characteri[sz](?:e|ing)|monitor(?:ing)?|follow(?:ing)?|investigat(?:e|ing)|sampl(?:e|ing)|biopsy|"
    r"drain(?:ing)?|surrounds|surrounding|within|inside|around|adjacent to|near|along|surrounding|beside|"
    r"beneath|behind|below|above|abutting|in|from|to|of|by|with|between) (?:the|this|that|these|those|its|"
    r"their) (?:(?!(?:an?|any|is|are|has|have|contains?|shows?)\b)[\w-]+ ){0,3}$"
)
OF_A_TRACE = re.compile(
    r"\b(?:evidence|re-?accumulation|signs?|traces?|indication|residual\w*|remnants?|remains|"
    r"visuali[sz]ation|recurrence|presence|suggestion|suspicion|persistence|resolution|clearing|removal|"
    r"(?:re)?section|repair|excision|drainage|free|clear|devoid) (?:of|from) (?:the|this|that|these|"
    r"those) (?:[\w-]+ ){0,3}$|\bin the (?:[\w-]+ ){0,3}$(?<=lung )|^ ?(?:the|this|these) (?:[\w-]+ ){0,3}$"
)
SIGN_OF = re.compile(
    r"\b(?:evidence|signs?|traces?|residual\w*|remnants?|recurrence|presence|suggestion|suspicion|"
    r"persistence) (?:of|from) (?:the|this|that|these|those) (?:[\w-]+ ){0,3}$|"
    r"\bin the (?:[\w-]+ ){0,3}$(?<=lung )|^ ?(?:the|this|these) (?:[\w-]+ ){0,3}$"
)
ADVISED_FOR = re.compile(r"^ for (?:the|this|that|these|those|further|follow) ?")
# `if X does not clear`: X is there
GOES_ON = re.compile(
    r"^ (?:(?:does|do|did|has|have) not (?:clear|resolve|improve|change|decrease)|fails? to|persists?|"
    r"enlarges?|grows?|worsens?|increases?|progress\w*|remains?|continues?|changes?|resolves?|clears?|"
    r"persist|enlarge|grow|worsen|is (?:stable|unchanged|still))\b"
)
ONE_SIDE = re.compile(r"\b(?:left|right)(?:-sided)?,? but $")
OTHER_SIDE = re.compile(r"^ (?:left|right)(?:-sided)?,? (?:[\w-]+ ){0,2}$")
# `do not think that there is`: what is said of is the clause that follows
COMPLEMENT = re.compile(
    r"(?: (?!and\b|with\b|or\b)\w+){0,2} there (?:is|are|was|were)\b(?<!,)|(?: \w+ly)? be (?:due|"
    r"secondary) to\b"
)
DEFINITE = re.compile(r"^ (?:the|this|these|that|those) (?:[\w-]+ ){0,3}$")
NONE_OF = re.compile(
    r"\b(?:none|neither|not one) of (?:the|these|those|his|her) (?:(?!(?:an?|any|is|are|has|have|"
    r"\w+s)\b)[\w-]+ ){0,3}$"
)
EVENT = re.compile(
    r"^(?: \w+)? (?:migration|malposition\w*|kinking|leak(?:age)?|displacement|occlusion|complications?|"
    r"cavitation|growth|progression|enlargement|dysfunction|fragmentation|disconnection|dislodge\w*|"
    r"discontinuity|loculation|rupture|related|associated(?! with| to)|infection|increase|thrombosis|"
    r"stenosis)\b"
)
ELLIPSIS = re.compile(
    r"[;,.] (?:but )?(?:(?:today.s |the |this )?(?:ct|study|examination|scan|imaging)) (?:does|"
    r"did) not (?:bear|confirm|support|corroborate|substantiate|show) (?:this|it|that)\b|(?:,|;|\bbut|"
    r"\band|\bhowever,?|\bthough|\balthough|\. |^ (?=which |that )) ?(?:but |and |which |that |now |today |"
    r"currently |however,? )*(?:it |they |this |these |such a thing |one |the (?:former|latter|same|"
    r"finding) )?(?:(?:is|are|was|were|has|have|had|can|could) (?:now |since |today |"
    r"currently )*)?(?:(?:not|no longer|never|n't)(?: (?!previously)\w+ly)?(?: been| be)?"
    rf" {SEEN}|cannot be {SEEN}|none (?:(?:is|are|was|were|has been|could be|can be) )?(?:\w+ly )?{SEEN}|"
    r"(?:has|have|is|are) (?:now |since |completely |fully |entirely )*(?:resolved|cleared|gone|"
    r"disappeared|"
    rf"vanished|reabsorbed|resorbed|healed))\b(?!{PRIOR})|"
    r"(?:,|;|\bbut) (?:but |however,? )?(?:i|we|this (?:study|scan|ct)) (?:do|does|did|can|could) ?(?:not|"
    r"n['\u2019]t) (?:\w+ly )?(?:see|identify|find|confirm|show|appreciate|detect|demonstrate|"
    r"reproduce) (?:it|this|one|them|these|that|any)\b|\bbut not (?:in|on|at) (?:the )?(?:current|present|"
    r"today|this|latest|recent)\b|(?:,|\band|\bbut|;) (?:none|nothing|no trace) (?:now |"
    r"of it )?(?:remains?|persists?|is left|was left|is there)\b|, (?:all|both|each) of (?:which|"
    r"them) (?:has|have|is|are) (?:now |since |completely |fully )*(?:resolved|cleared|gone|disappeared)\b"
)
UNREAL = re.compile(
    r"(?:(?:, [\w -]{1,30}){0,3},? (?:and/or|or) [\w -]{1,40}?)??[ ,]*\b(?:would|might|could|"
    r"should)\b(?! (?:well |also |still |simply |just |then |both |all |each )*(?:(?:be|"
    r"have been) (?!(?:present|seen|missed|obscured|excluded|considered|suspected|raised|questioned|looked|"
    r"expected|overlooked|hidden|there|possible|difficult|in|sought)\b)\w|represent|reflect|indicate|"
    r"relate|suggest|result|correspond|resolve|clear|improve|progress|benefit))"
)
REVISED = re.compile(
    r"^ (?:in question |on (?:the )?(?:(?:prior|previous|earlier) )?\w+ |(?:in|at|on|"
    r"of) the (?:[\w-]+ ){1,4}?|(?:\w+ly )?(?:seen|questioned|queried|suspected|described|noted|reported|"
    r"raised|identified)(?: (?!(?:is|was|are|were|represent\w*|correspond\w*)\b)[\w-]+){0,6} |\w+ )?(?:is|"
    r"was|are|were|represents?|represented|corresponds? to|corresponded to|proves? to be|proved to be|"
    r"turns? out to be|turned out to be|is (?:actually|in fact|merely|just)|was (?:actually|in fact|merely|"
    r"just)|is shown to be) (?:merely |only |actually |in fact |just |simply )?(?:due to |"
    r"the result of )?(?:an? |the )?(?:(?!(?:in|on|at|near|along|adjacent|abutting|to|of|within|behind|"
    r"next|from|by|with|below|above|inseparable|attached|close|contacting|touching|against|beside|between|"
    r"not|no|\w+ly|under|underneath|beneath)\b)\w+ ){0,3}(?:vessels?|arti?e?facts?|artifactual|nipple|rib|"
    r"fat|summation|shadow|averaging|mucus|cartilage|fold|bone|osteophyte|fissure|vein|artery|fracture|"
    r"dome|superimposed|superimposition|overlapping|overlying)\b"
)
# `has cleared on the right but not on the left`
PARTLY = re.compile(
    r"\b(?:but|yet|though) (?:it |they )?(?:not (?:on|in|at)|persists?|lingers?|remains?|still)\b|\b(?:but|"
    r"and|with) (?:only )?(?:an? )?(?:(?:small|tiny|trace|minimal|residual) ?)+(?:amount )?(?:\w+ "
    r")?(?:remains?|persists?)\b"
)
# `no new X; the old one is stable`
OLD_ONE = re.compile(
    r"^[^.]{0,20}[;,]? (?:but |and |with )?(?:the|an?) (?:[\w-]+ ){0,3}ones? (?:is|are|remains?|has|have|"
    r"on|in|at)\b"
)
EXCEPTION = re.compile(
    r",? (?:except(?:ing)?(?: for)?|with the exception of|other than|apart from|aside from) (?:an?|one|two|"
    r"some|several|\d) ?[^.;]{1,60}"
)
EXPECTED = re.compile(r"\bwould (?:have )?(?:be |been )?(?:expect\w*|anticipat\w+)\b[^.;]*$")
YET = re.compile(r"\b(?:yet|but|however)\b[^.;]*\b(?:clear|none|no|not|normal)\b")
KIN = re.compile(
    r"\b(?:family history|familial history|mother|father|brother|sister|sibling|son|daughter|aunt|uncle|"
    r"cousin|grand(?:mother|father)|relatives?|parents?|husband|wife|spouse)\b(?: \(?[\w ]{0,20}\)?)?(?: "
    r"(?:had|has|with|of|for|died|suffer\w*|includes?)\b|:)[^.;]*$"
)
LIMITED = re.compile(
    r"\b(?:limit(?:ed|s|ing)|suboptimal|poor|reduced|precludes?|degrad\w+|impair\w+|hampers?|restricts?|"
    r"non-?diagnostic|insensitive|inadequate) (?:\w+ ){0,2}(?:evaluation|assessment|detection|sensitivity|"
    r"characteri[sz]ation|exclusion|visuali[sz]ation|for)(?: (?:of|for))? (?:[\w-]+ ){0,4}$|\b(?:search|"
    r"screening|surveillance|evaluat(?:ion|ed)|assess(?:ment|ed)|study|scan) for (?:[\w-]+ ){0,4}$"
)
EARLIER = re.compile(
    r"\b(?:prior|previous|earlier|last|preceding|old|initial|baseline|comparison)(?: \w+){0,2},? "
    r"(?:(?:which|that|where) )?(?:had )?(?:show(?:ed|n)|demonstrated|revealed|contained|had|depicted|"
    r"described) (?:[\w-]+ ){0,4}$"
)
CLEARED = re.compile(
    r"[,;] (?:and |but )?(?:today |now |currently )?(?:the |both |these )?(?:[\w-]+ ){0,3}(?:(?:is|"
    r"are) (?:now )?(?:clear|normal|resolved|gone|no longer|not)|has (?:resolved|cleared)|have (?:resolved|"
    r"cleared))\b"
)
THING = (
    r"(?:atelecta\w+|consolidat\w+|opacit\w+|scar(?:s|ring)?|infiltrat\w+|pneumonia|nodul\w+|effusions?|"
    r"thickening|fibro\w+|mass(?:es)?|o?edema|emphysema|cysts?|bronchiecta\w+|granulom\w+|lymph ?nodes?|"
    r"vessels?|haemorrhage|hemorrhage|infection|aspiration|artefact|artifact|bullae?|reaction|pneumonitis|"
    r"tumou?r|neoplas\w+|malignancy|fluid|collapse|h[a]?ematoma|plaque|adhesions?|lesion|adenopathy|"
    r"lymphadenopathy|shadow|diverticulum|confluence)"
)
EITHER_OR = re.compile(rf"^(?: changes?)?,? (?:and/or|or) (?:[\w-]+ ){{0,3}}{THING}\b|^ ?/ ?{THING}\b")
OR_ELSE = re.compile(rf"\b{THING}(?: changes?)?,? (?:and/or|or) (?:[\w-]+ ){{0,3}}$")
# a clause without any of these cannot match the pattern of the name
UNASSESSED_STEMS = re.compile(r"not|n't|n\u2019t|limited|suboptimal|degraded|precluded|diagnostic")
DENIED_STEMS = re.compile(
    r"not|n't|n\u2019t|never|longer|absent|exclud|ruled|resolv|clear|remov|gone|disappear|subsid|vanish|"
    r"regress|negativ|neither|none|nil|expan|sorb|abat|dissip|heal|come|dissol|free|normal|physiol|"
    r"recurrence|nowhere|unfounded|refuted|spurious|unsubst|pulled|drain|repair|evacuat|excis|resect|"
    r"extract|discontin|out|withdrawn|explant|: no|:no|- no|\? no|\?no"
)
DOUBT_STEMS = re.compile(
    r"distinguish|differentiat|separat|discriminat|confirm|exclud|ruled|suspect|possib|likely|probab|"
    r"question|favo|certain|equivoc|doubt|differential|may|might|could|versus|vs|\?|consider|well|poor|"
    r"clearly|optimal|difficult|hard|missed|obscur|overlook|hidden|raised|debatable|conceivable|postul|"
    r"presum|suggest|propos|quer|impl|hint|argu|plausib|confirm|proven|not be|if|list|to|concern|or not"
)
OTHER_SUBJECT = re.compile(rf"(?:;|\bbut\b|\band\b|,)[^,;]*\b{THING}\b")
# `partial resolution`, `not resolved`, `to document resolution`: it is not gone
NOT_WHOLE = re.compile(
    r"\b(?:not|near|nearly|partial(?:ly)?|incomplete(?:ly)?|almost|mostly|largely|never|no|un|document|"
    r"ensure|confirm|assess|evaluate|until|to|for|towards?|expected|await\w*|verify|"
    r"establish)[ -](?:(?:complete(?:ly)?|full|fully|total|entire(?:ly)?|interval|further|the|of|have|be|"
    r"has) ){0,3}$"
)
# `X, malignancy cannot be excluded`: what follows the comma is said of another thing
ANOTHER = re.compile(
    r"^[\w -]{0,60}, (?:(?:but|and|though|although|for which|in which|where) )?(?!and\b|or\b|nor\b|which\b|"
    r"that\b|it\b|they\b|this\b|these\b|also\b|again\b|now\b|therefore\b|however\b|although\b|though\b|"
    r"if\b|too\b|\w+ly\b|one\b|but\b|still\b|probable\b|possible\b)(?:(?!and\b|or\b|nor\b|also\b|"
    r"too\b)[\w-]+ ){1,4}$"
)
# `no X, although this is difficult to exclude`
DOUBT_ELLIPSIS = re.compile(
    r"^[^.;]{0,60}?(?:,|;|\.|\band|\bbut|\balthough|\bthough|\bhowever,?) (?:but |although |though |"
    r"however,? |and )*(?:this|it|they|one|these|(?:an?|some) (?:very |tiny |small |subtle )+one) (?:(?:is|"
    r"are|would be) (?:\w+ )?(?:difficult|hard|impossible|possible|not (?:\w+ly )?excluded)|(?:can ?not|"
    r"could not|can['\u2019]t) be (?:\w+ly )?(?:excluded|ruled)|(?:may|might|could) be (?:missed|present|"
    r"obscured|overlooked|there))\b"
)
# `no complication of X`: an event of it is denied, not the thing
EVENT_OF = re.compile(
    r"^ (?:[\w-]+ ){0,4}?(?:complications?|migration|malposition\w*|kinking|fracture|leak(?:age)?|"
    r"displacement|occlusion|dysfunction|infection|stenosis|thrombosis|enhancement|drainage|growth|"
    r"progression|enlargement|cavitation|loculation|rupture|change|changes|pneumothorax|bleeding|"
    r"hematoma) (?:of|from|related to|relating to|associated with|involving|around|following|after|post|"
    r"status post|with|due to|secondary to) (?:the )?(?:[\w-]+ ){0,3}$"
)
# `no displaced sternal wire`
AMISS = re.compile(
    r"^ (?:[\w-]+ ){0,2}(?:displaced|malpositioned|fractured|broken|kinked|dislodged|migrated|disrupted|"
    r"discontinuous) (?:[\w-]+ ){0,3}$"
)
DEVICE = re.compile(
    r"wire|lead|catheter|tube|stent|clip|pacemaker|sternotomy|hardware|\bport\b|screw|\bline|prosthe|valve|"
    r"filter|implant|suture|electrode|drain"
)
# `X growth is suspected`, `X tip is not seen`: what is said of a property or a part is not said of the thing
PROPERTY = re.compile(
    r"^ (?:(?:growth|stability|cavitation|size|volume|margins?|tips?|positions?|location|extent|number|"
    r"morphology|appearance|contour|etiology|cause|origin|calcification|enhancement|loculation|"
    r"characteri[sz]ation|configuration|course|leads?|progression|shape|depth|thickness)\b)"
)
# `left X, resolved on the right`
GONE_THERE = re.compile(r"^ (?:on|in|at|from) the (?P<side>left|right)\b")
PART_OF = re.compile(
    r"\b(?:tips?|positions?|ends?|margins?|cause|origin|size|extent|etiology) of (?:the |"
    r"this )(?:[\w-]+ ){0,3}$"
)
# `follow-up of the X is suggested`
CARE_OF = re.compile(
    r"\b(?:follow-?up|comparison|biopsy|imaging|ct|evaluation|correlation|stability|surveillance|"
    r"monitoring|drainage|sampling|assessment|resolution|clearing|characteri[sz]ation|investigation) (?:of|"
    r"for) (?:the|this|these|those) (?:[\w-]+ ){0,4}$"
)
# `because of X, nodules cannot be assessed`: the clause ends at the comma
INTRODUCED = re.compile(
    r"^(?:because of|due to|given|despite|in view of|in spite of|with|in addition to|besides)\b[^,;]*$"
)
# `X obscures the base and Y cannot be excluded`
NEW_SUBJECT = re.compile(
    r"^ (?:\w+ly )?(?:obscur\w+|limits?|is|are|was|were|has|have|measures?|remains?|persists?|shows?|"
    r"contains?|precludes?)\b[^,;]* and (?!(?:is|are|was|were|has|have|cannot|can|may|could|might|not|also|"
    r"now|again|or)\b)(?:[\w-]+ ){1,4}$"
)
# `if X is confirmed, follow the Y`: the condition ends where the advice begins
ADVICE = re.compile(r", (?:[\w-]+ ){0,8}?(?:the|this|that|these|those|its) (?:[\w-]+ ){0,3}$")
ABSENCE = re.compile(r"^(?:in the |given (?:the )?|with )?absence of [^,;]{1,80}, (?!or\b|and\b|nor\b)")
# `Xs in the left have gone, those in the right persist`
REMAINDER = re.compile(
    r"[;,.]? (?:(?:but|and|while|whereas|although|though|yet) )*(?:(?:those|that|the (?:ones?|others?)|"
    r"ones?|others) )?(?:(?:in|on|at|of) )?(?:the )?(?P<side>left|right)(?: (?:lung|side|base|apex|"
    r"hemithorax|one|lower lobe|upper lobe|middle lobe|ones))? (?:(?:is|are|has|"
    r"have) )?(?:\w+ly )?(?:persist\w*|remain\w*|unchanged|stable|linger\w*|again|still|increased|"
    r"decreased|improved|worsened|not (?:resolved|cleared|changed))\b"
)
