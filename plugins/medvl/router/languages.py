"""Cues in French, German, Spanish, Italian, Portuguese and Chinese. Options, formats of boxes and `%` need no language.

Other languages are not read: such a question goes on to GLiClass, and to `general` where that is not sure.
"""

import re

from medvl.tasks import Task

# What makes it a question about a medical picture.
_PICTURE = re.compile(
    r"\b(?:images?|imagen(?:es)?|imagem|immagin[ei]|bild(?:ern?|es)?|clich[ée]s?|photo\w*|foto\w*|radiograph\w*|radiograf\w*|r[öo]e?ntgen\w*|"
    r"aufnahme\w*|[ée]chograph\w*|ecograf\w*|ultraschall\w*|scanner|scan|tac|irm|mrt|lames?|frottis|abstrich\w*|coupe|schnitt\w*|"
    r"l[ée]si[oó]n\w*|lesi\w+|les[ãõ]\w+|l[äa]sion\w*|cellul\w*|c[ée]lulas?|zell\w*|tumeurs?|tumor\w*|fractur\w*|frattur\w*|fratur\w*|poumon\w*|lunge\w*|pulm\w*|polmon\w*|"
    r"patient\w*|pacient\w*|pazient\w*|dents?|dientes?|z[äa]hn\w*|kiefer\w*)\b"
    r"|图像|图片|影像|照片|切片|涂片|X线|x光|X光|超声|细胞|病灶|病变|肿瘤|胸片|患者|牙",
    re.IGNORECASE,
)
_CUES: tuple[tuple[Task, str], ...] = (
    (Task.MULTI_LABEL, r"\b(?:toutes les (?:réponses|options|propositions)|tout ce qui|alle zutreffenden|mehrere (?:antworten|optionen)|todas las (?:opciones|que)|"
     r"todas as (?:opções|que)|tutte le (?:opzioni|risposte)|point-virgule|semikolon|punto y coma|punto e virgola|ponto e vírgula)\b|所有适用|多选|所有符合|分号"),
    (Task.INSTANCE_DETECTION, r"json.*(?:chaque|jede|cada|ogni|每)|(?:chaque|jede[nmrs]?|cada|ogni|每).*json"),
    (Task.DETECTION, r"\b(?:boîtes? englobantes?|cadres? englobants?|coordonnées|rectangle|begrenzungs(?:rahmen|box)|bounding|koordinaten|cajas? delimitadoras?|"
     r"coordenadas|caixas? delimitadoras?|riquadr[oi]|coordinate)\b|边界框|坐标|包围框"),
    (Task.COUNTING, r"\b(?:combien d[e'’]|nombre (?:total )?d[e'’]|compte[zr]?|dénombre[zr]?|wie ?viele|anzahl|zähle?n?|cuánt[oa]s|número de|cuente|contar|cuenta|"
     r"quant[ie] (?!per)|quant[oa]s|conta(?:re|te)?|conte)\b|多少个|有多少|几个|数量|计数|数一数"),
    (Task.REGRESSION, r"\b(?:pourcentage|prozent\w*|porcentaje|percentuale|porcentagem|quel âge|wie alt|qué edad|quale età|que idade|âge|alter|angle|winkel|ángulo|angolo|"
     r"ângulo|mesure[zr]?|messe?n?|mide|medir|misura|taille|größe|tamaño|diamètre|durchmesser|diámetro|diametro|diâmetro|estime[zr]?|schätze?n?|estim[ae])\b|百分比|年龄|角度|多大|直径|测量|估计"),
    (Task.CLASSIFICATION, r"\b(?:oui ou non|ja oder nein|sí o no|sì o no|sim ou não|est-ce qu\w*|y a-t-il|quel(?:le)? est le (?:diagnostic|type|stade)|welche[rs]?|"
     r"gibt es|ist (?:das|die|der|ein|eine|auf)|zeigt|¿?hay|¿?es (?:esta|este|una?)|c'è|è (?:presente|visibile)|há|klassifizier\w*|classifi\w*|clasific\w*|diagnos\w*|diagnóstico)\b|是否|是不是|有没有|诊断|分类|哪种|哪一"),
    (Task.REPORT, r"\b(?:décri\w*|compte[- ]rendu|rapport|rédige\w*|beschreib\w*|befund\w*|bericht\w*|describ\w*|informe|redact\w*|descrev\w*|laudo|relatório|descriv\w*|referto)\b|描述|报告|所见"),
)  # fmt: skip
_COMPILED = tuple((task, re.compile(cue, re.IGNORECASE)) for task, cue in _CUES)
_ENGLISH = re.compile(r"\b(?:the|what|which|how|is|are|this|these|does|of|with|and|give|please)\b", re.IGNORECASE)


def foreign_cue(text: str) -> Task | None:
    """The task that a text in another language asks for; None for English, or where no cue is known."""
    if len(_ENGLISH.findall(text)) > 1 or _PICTURE.search(text) is None:
        return None
    return next((task for task, cue in _COMPILED if cue.search(text)), None)
