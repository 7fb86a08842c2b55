"""Whether a prompt is about a medical image at all: a rule on mere wording needs that, a chat prompt has it not."""

from medvl.router.patterns import any_of, pattern

_IMAGE = any_of(
    r"images? pictures? photo(?:graph|micrograph)?s? scans? slides? smears? radiographs? x-?rays? films? frames?"
    r" slices? cases? figures?"
    r" micrographs? sonograms? specimens? panels? views? tiles? patch(?:es)? stud(?:y|ies) fields? sections? clips?"
    r" pics? screenshots?"
)
_WRITING = pattern(
    any_of(r"python java(?:script)? typescript sql html css bash regex(?:p|es)? source_code code_snippet numpy"),
    r"c\+\+",
    r"(?:write|debug|fix|refactor|implement|explain)\b[^.?]{0,40}\b"
    + any_of("code function script program class loop query algorithm bug api"),
    any_of(
        r"poems? haiku limerick sonnet songs? lyrics jokes? riddles? fairy_tale short_story stor(?:y|ies)_about"
        r" novel essay blog_?post tweet"
        r" e-?mail cover_letter recipe translat(?:e|ion) plot_of marketing slogan business_plan"
    ),
)  # fmt: skip
_AT_HAND = pattern(
    any_of("this these that attached given provided uploaded following above below displayed presented")
    + rf" (?:[\w-]+ ){{0,4}}{_IMAGE}",
    r"the (?:[\w-]+ ){0,3}"
    + any_of("image picture photo(?:graph)? scan slide smear radiograph x-?ray film frame slice figure") + "s?",
    "look(?:ing|s)? at", any_of("shown visible depicted pictured displayed seen"),
    "this " + any_of("patient case newborn child lesion tooth"),
)  # fmt: skip
# Knowledge and advice; what people ask of the world at large.
_KNOWLEDGE = pattern(
    any_of(
        r"side[-_]effects? dos(?:e|es|age|ing) medications? medicines? drugs? tablets? vaccin\w+ prescri\w+"
        r" treat(?:ments?|ed|ing)?"
        r" therap(?:y|ies) cures? prevent\w* symptoms? causes? risk_factors? guidelines? insurance diet"
        r" recover(?:y)? prognosis"
        r" literature textbook tips advice recommend\w* define definition difference_between meaning_of facts?"
        r" history_of why"
    ),
    any_of(r"should_i can_i may_i do_i am_i did_i i_have i've i_feel my"),
    r"i(?:'m| am) (?:an?|feeling|sick|pregnant|worried|tired|sad|trying|learning|\d+)",
    r"how (?:do|does|can|to)\b[^?]*\b(?:works?|calculate|measure|diagnose|prepare)",
    "what (?:is|are) (?:an?|the (?:normal|typical|average|usual|definition|difference|purpose|history))",
    "explain (?:how|why|the concept|the difference)",
    any_of(
        r"people population world countr(?:y|ies) cit(?:y|ies) human_body adult_human humans? on_average"
        r" average_(?:person|adult)"
        r" typically usually normally in_general healthy_(?:adult|person) planets? weather football movies? stocks?"
        r" hotels? restaurants?"
        r" flights? price cost oscar award actors? which_doctor doctor_near appointment hospital_near"
    ),
)  # fmt: skip
_MEDICAL = pattern(
    _IMAGE,
    # how images are made
    any_of(
        r"ct mri mr pet oct ultrasounds? ultrasonograph\w* echo\w* mammogra\w* angiogra\w* tomogra\w*"
        r" derm(?:at)?oscop\w* endoscop\w*"
        r" colonoscop\w* bronchoscop\w* microscop\w* histolog\w* cytolog\w* patholog\w* radiolog\w* fundus opg"
        r" orthopantomogra\w* panoramic"
        r" biops\w+ aspirates? ecgs? ekg doppler clinical\w* medical\w* patients? newborns? neonat\w* infants? plane"
        r" impressions? findings"
    ),
    # what is wrong
    any_of(
        r"lesions? mass(?:es)? nodules? tumou?rs? polyps? cysts? opacit\w+ fractures? ulcers? wounds? moles? rash"
        r" plaques? malignan\w+ benign"
        r" cancer\w* metasta\w+ abnormalit\w+ abnormal disease\w* disorders? diagnos[ei]s diagnostic anomal\w+"
        r" swollen swelling bleed\w* clots?"
        r" injur\w+ trauma\w* foreign_bod(?:y|ies) haematoma\w* hematoma\w* exudates? erosions? abscess\w* stones?"
        r" spots? drusen aneurysm\w*"
        r" microaneurysm\w* calcifi\w+ microcalcif\w+ caries resorption stenos[ei]s invasion artefacts? artifacts?"
    ),
    # cells
    any_of(
        r"cells? nucle(?:us|i|ar) chromosomes? mitos[ei]s mitotic colony colonies bacteri\w* parasites? organisms?"
        r" eosinophils? neutrophils?"
        r" basophils? [rw]bcs? platelets? marrow glands? follicles? embryos? fo?et(?:al|us|uses) placenta\w*"
        r" gestation\w* sacs? ki-?67 prolifer\w+"
    ),
    # the body
    any_of(
        r"lungs? hearts? cardi\w+ thora\w+ chest ribs? mediastin\w+ diaphragm pleura\w* liver hepat\w+ spleen"
        r" splen\w+ kidneys? renal bladder"
        r" gallbladder\w* pancrea\w* bowel colon\w* gastr\w+ stomach o?esophag\w+ brain cerebr\w+ ventric\w+ midline"
        r" skulls? spin(?:e|al)"
        r" vertebra\w* discs? bones? bony femur tibia hips? knees? ankles? wrists? joints? shoulders? elbows? teeth"
        r" tooth dental molars?"
        r" jaws? mandib\w+ maxill\w+ alveolar retina\w* optic macula\w* eyes? cornea\w* skin dermal breasts?"
        r" nipples? prostat\w+ uter\w+"
        r" endometri\w+ ovar\w+ cervi\w+ scrot\w+ testic\w+ thyroid lymph\w* nodes? arter\w+ vessels? vascular"
        r" aort\w+ veins? valves? intima\w*"
        r" head neck arms? legs? feet hands? fingers? pelvi\w+ abdom\w+ airways? trache\w+ bronch\w+ muscles?"
        r" tendons? ligaments? cartilage"
        r" nerves? organs? tissues? anatom\w+ structures? symphysis"
    ),
    # devices and measures
    any_of(
        r"catheters? stents? pacemakers? implants? tubes? screws? needles? instruments? circumference progression"
        r" cobb suv\w* lvef bmd ffr crl"
        r" bpd afi bi-?rads [lpt]i-?rads gleason ejection"
    ),
    # more of the body, and of what is seen in it
    any_of(
        r"lob(?:es?|ar) hil(?:um|ar) appendix crowns? roots? canals? pulp enamel sinus(?:es)? orbits? lens iris"
        r" pupils? larynx pharynx vocal"
        r" tongue gingiva\w* palate ears? eardrum nasal scalp nails? burns? scars? papules? macules? pustules?"
        r" vesicles? warts? n(?:a)?ev(?:us|i)"
        r" hernia\w* ducts? biliary portal carotid coronar\w+ pulmonary mitral tricuspid sept(?:um|al)"
        r" atri(?:um|al|a) myocard\w+"
        r" pericard\w+ thromb\w+ embol\w+ occlu\w+ dissection isch(?:a)?emi\w+ infarct\w* necro\w+ inflam\w+"
        r" consolidat\w+ infiltrat\w+"
        r" effusions? cavit(?:y|ies) reticular enhancement attenuation h\w{3,4}intens\w+ h\w{3,4}echo\w+"
        r" echogenic\w* lucen\w+ lytic"
        r" osteophytes? spurs? scoliosis kyphosis menisc\w+ acetabul\w+ sacr\w+ humerus radial ulna\w* fibula"
        r" patella clavicle scapula"
        r" sternum \w*carpal phalan\w+ epiphys\w+ amniotic umbilical nuchal testis urethra\w* ureters? adrenal"
        r" pituitary thymus stain\w*"
        r" immunohisto\w+ cytoplasm\w* stroma\w* epitheli\w+ crypts? villi erythro\w+ leu[ck]o\w+ h(?:a)?emoglobin"
        r" malaria\w* tubercul\w+"
        r" fung(?:al|us|i) yeast sperm\w* oocytes? surgical laparoscop\w+ [tnm]_stage staging metasta\w+"
        r" narrative_report"
        r" (?:wo)?man's person's child's subject's patient's"
    ),
    # words of medicine by their ends
    r"\w{2,}" + any_of(
        r"itis omas? os[ei]s a?emia pathy plasia megaly trophy ectasi[as] cytes? blasts? thorax rrhages? gram graphy"
        r" o?edema sclerosis"
        r" oscopy algia uria penia lysis ectomy"
    ),
)  # fmt: skip


def asks_for_writing(text: str) -> bool:
    """Whether it wants code, verse, letters, translations: never a task of the router, whatever else it says."""
    return _WRITING.search(text) is not None


def asks_for_knowledge(text: str) -> bool:
    """Whether it wants knowledge or advice, and speaks of no image at hand."""
    return _KNOWLEDGE.search(text) is not None and _AT_HAND.search(text) is None


def is_medical_image(text: str) -> bool:
    """Whether it speaks of a medical image, or of what such an image shows, rather than asks for knowledge."""
    about_a_image = _MEDICAL.search(text) is not None or _AT_HAND.search(text) is not None
    return about_a_image and not asks_for_knowledge(text)
