"""Whether a prompt is about a medical picture at all: a rule on mere wording needs that, a chat prompt has it not."""

import re

_WRITING = re.compile(
    r"""\b(?:python|java(?:script)?|typescript|c\+\+|sql|html|css|bash|regex(?:p|es)?|source\scode|code\ssnippet|pytorch|numpy|opencv|
        (?:write|debug|fix|refactor|implement|explain)\b[^.?]{0,40}\b(?:code|function|script|program|class|loop|query|algorithm|bug|api)|
        poems?|haiku|limerick|sonnet|songs?|lyrics|jokes?|riddles?|fairy\stale|short\sstory|stor(?:y|ies)\sabout|novel|essay|blog\s?post|tweet|
        e-?mail|cover\sletter|recipe|translat(?:e|ion)|plot\sof|marketing|slogan|business\splan)\b""",
    re.VERBOSE | re.IGNORECASE,
)
_PICTURE = r"(?:images?|pictures?|photo(?:graph|micrograph)?s?|scans?|slides?|smears?|radiographs?|x-?rays?|films?|frames?|slices?|cases?|figures?|micrographs?|sonograms?|specimens?|panels?|views?|tiles?|patch(?:es)?|stud(?:y|ies)|fields?|sections?|clips?|pics?|screenshots?)"  # noqa: E501
_AT_HAND = re.compile(
    rf"""\b(?:this|these|that|attached|given|provided|uploaded|following|above|below|displayed|presented)\s(?:[\w-]+\s){{0,4}}{_PICTURE}\b
        | \bthe\s(?:[\w-]+\s){{0,3}}(?:image|picture|photo(?:graph)?|scan|slide|smear|radiograph|x-?ray|film|frame|slice|figure)s?\b
        | \blook(?:ing|s)?\sat\b | \b(?:shown|visible|depicted|pictured|displayed|seen)\b | \bthis\s(?:patient|case|newborn|child|lesion|tooth)\b""",  # noqa: E501
    re.VERBOSE | re.IGNORECASE,
)
_KNOWLEDGE = re.compile(
    r"""\b(?:side[-\s]effects?|dos(?:e|es|age|ing)|medications?|medicines?|drugs?|tablets?|vaccin\w+|prescri\w+|treat(?:ment|ments|ed|ing)?|
        therap(?:y|ies)|cures?|prevent\w*|symptoms?|causes?|risk\sfactors?|guidelines?|insurance|diet|recover(?:y)?|prognosis|literature|textbook|
        should\si|can\si|may\si|do\si|am\si|did\si|i\shave|i've|i(?:'m|\sam)\s(?:an?|feeling|sick|pregnant|worried|tired|sad|trying|learning|\d+)|i\sfeel|my|tips|advice|recommend\w*|how\s(?:do|does|can|to)\b[^?]*\b(?:works?|calculate|measure|diagnose|prepare)|
        what\s(?:is|are)\s(?:an?|the\s(?:normal|typical|average|usual|definition|difference|purpose|history))|define|definition|difference\sbetween|
        meaning\sof|explain\s(?:how|why|the\sconcept|the\sdifference)|why|facts?|history\sof|people|population|world|countr(?:y|ies)|cit(?:y|ies)|
        human\sbody|adult\shuman|humans?|on\saverage|average\s(?:person|adult)|typically|usually|normally|in\sgeneral|healthy\s(?:adult|person)|
        planets?|weather|football|movies?|stocks?|hotels?|restaurants?|flights?|price|cost|oscar|award|songs?|actors?|which\sdoctor|doctor\snear|appointment|hospital\snear)\b""",
    re.VERBOSE | re.IGNORECASE,
)
_MEDICAL = re.compile(
    rf"""\b(?:{_PICTURE}|ct|mri|mr|pet|oct|ultrasounds?|ultrasonograph\w*|echo\w*|mammogra\w*|angiogra\w*|tomogra\w*|derm(?:at)?oscop\w*|endoscop\w*|
        colonoscop\w*|bronchoscop\w*|microscop\w*|histolog\w*|cytolog\w*|patholog\w*|radiolog\w*|fundus|opg|orthopantomogra\w*|panoramic|biops\w+|aspirates?|
        ecgs?|ekg|doppler|patients?|newborns?|neonat\w*|infants?|clinical\w*|medical\w*|
        lesions?|mass(?:es)?|nodules?|tumou?rs?|polyps?|cysts?|opacit\w+|fractures?|ulcers?|wounds?|moles?|rash|plaques?|malignan\w+|benign|cancer\w*|
        abnormalit\w+|abnormal|disease\w*|disorders?|diagnos[ei]s|diagnostic|anomal\w+|swollen|swelling|bleed\w*|clots?|
        cells?|nucle(?:us|i|ar)|chromosomes?|mitos[ei]s|mitotic|coloni?(?:es|y)|bacteri\w*|parasites?|organisms?|eosinophils?|neutrophils?|basophils?|
        [rw]bcs?|platelets?|marrow|glands?|follicles?|embryos?|f(?:o)?et(?:al|us|uses)|placenta\w*|ki-?67|
        lungs?|heart|hearts|cardi\w+|thora\w+|chest|ribs?|mediastin\w+|diaphragm|pleura\w*|liver|hepat\w+|spleen|splen\w+|kidneys?|renal|bladder|
        pancrea\w*|bowel|colon\w*|gastr\w+|stomach|o?esophag\w+|brain|cerebr\w+|ventric\w+|midline|skulls?|spin(?:e|al)|vertebra\w*|discs?|bones?|bony|
        femur|tibia|hips?|knees?|wrists?|joints?|teeth|tooth|dental|molars?|jaws?|mandib\w+|maxill\w+|alveolar|caries|implants?|retina\w*|optic|macula\w*|
        eyes?|cornea\w*|skin|dermal|breasts?|prostat\w+|uter\w+|endometri\w+|ovar\w+|nipples?|scrot\w+|testic\w+|cervi\w+|thyroid|lymph\w*|nodes?|arter\w+|vessels?|vascular|aort\w+|aneurysm\w*|metasta\w+|ankles?|injur\w+|trauma\w*|foreign\sbod(?:y|ies)|intima\w*|gestation\w*|h(?:a)?ematoma\w*|clips?|needles?|artefacts?|artifacts?|sacs?|instruments?|drusen|microaneurysm\w*|exudates?|erosions?|abscess\w*|stones?|spots?|veins?|valves?|
        head|neck|arms?|legs?|feet|hands?|fingers?|shoulders?|elbows?|pelvi\w+|abdom\w+|airways?|trache\w+|bronch\w+|muscles?|tendons?|ligaments?|cartilage|nerves?|gallbladder\w*|circumference|invasion|calcifi\w+|microcalcif\w+|prolifer\w+|catheters?|stents?|pacemakers?|tubes?|screws?|organs?|tissues?|anatom\w+|structures?|plane|symphysis|cobb|progression|
        bi-?rads|resorption|impressions?|findings|suv\w*|lvef|bmd|ffr|crl|bpd|afi|[lpt]i-?rads|gleason|ejection|stenos[ei]s|
        \w{{2,}}(?:itis|oma|omas|osis|oses|a?emia|pathy|plasia|megaly|trophy|ectasis|ectasia|cytes?|blasts?|thorax|rrhage|rrhages?|gram|graphy|oedema|edema|
        sclerosis|oscopy|algia|uria|penia|lysis|ectomy))\b""",
    re.VERBOSE | re.IGNORECASE,
)


def asks_for_writing(text: str) -> bool:
    """Whether it wants code, verse, letters, translations: never a task of the router, whatever else it says."""
    return _WRITING.search(text) is not None


def asks_for_knowledge(text: str) -> bool:
    """Whether it wants knowledge or advice, and speaks of no picture at hand."""
    return _KNOWLEDGE.search(text) is not None and _AT_HAND.search(text) is None


def is_medical_picture(text: str) -> bool:
    """Whether it speaks of a medical picture, or of what such a picture shows, rather than asks for knowledge."""
    return _MEDICAL.search(text) is not None and not asks_for_knowledge(text)
