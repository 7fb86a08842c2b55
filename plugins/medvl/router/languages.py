"""Cues in French, German, Spanish, Italian, Portuguese and Chinese. Options, formats of boxes and `%` need no language.

Other languages are not read: such a question goes on to GLiClass, and to `general` where that is not sure.
"""

import re

from medvl.router.patterns import any_of, pattern
from medvl.tasks import Task


def _pattern_of(words: str, chinese: str) -> re.Pattern[str]:
    return re.compile(f"{pattern(any_of(words)).pattern}|{chinese}", re.IGNORECASE)


# What makes it a question about a medical image.
_IMAGE = _pattern_of(
    r"images? imagen(?:es)? imagem immagin[ei] bild(?:ern?|es)? clich[ée]s? photo\w* foto\w* radiogra(?:ph|f)\w*"
    r" r[öo]e?ntgen\w* aufnahme\w*"
    r" [ée]chograph\w* ecograf\w* ultraschall\w* scanner scan tac irm mrt lames? frottis abstrich\w* coupe"
    r" schnitt\w* l[ée]si[oó]n\w*"
    r" lesi\w+ les[ãõ]\w+ l[äa]sion\w* cellul\w* c[ée]lulas? zell\w* tumeurs? tumor\w* fractur\w* frattur\w*"
    r" fratur\w* poumon\w* lunge\w*"
    r" chromosom\w* cromosom\w*"
    r" pulm\w* polmon\w* patient\w* pacient\w* pazient\w* dents? dientes? z[äa]hn\w* kiefer\w*",
    "图像|图片|影像|照片|切片|涂片|X线|X光|超声|细胞|病灶|病变|肿瘤|胸片|患者|牙|染色体",
)
_PATTERNS = (
    (Task.MULTI_LABEL, _pattern_of(
        "toutes_les_(?:réponses|options|propositions) tout_ce_qui alle_zutreffenden mehrere_(?:antworten|optionen)"
        " plusieurs_(?:réponses|options|propositions) varias_(?:respuestas|opciones) várias_(?:respostas|opções)"
        " più_(?:risposte|opzioni)"
        " todas_las_(?:opciones|que) todas_as_(?:opções|que) tutte_le_(?:opzioni|risposte) point-virgule semikolon"
        " punto_y_coma"
        " punto_e_virgola ponto_e_vírgula",
        "所有适用|多选|所有符合|分号")),
    (Task.INSTANCE_DETECTION, _pattern_of(
        "json.*(?:chaque|jede[nmrs]?|cada|ogni) (?:chaque|jede[nmrs]?|cada|ogni).*json",
        "json.*每|每.*json")),
    (Task.DETECTION, _pattern_of(
        "boîtes?_englobantes? cadres?_englobants? coordonnées rectangle begrenzungs(?:rahmen|box) bounding koordinaten"
        " cajas?_delimitadoras? coordenadas caixas?_delimitadoras? riquadr[oi] coordinate",
        "边界框|坐标|包围框")),
    (Task.COUNTING, _pattern_of(
        r"combien_d\S+ nombre_(?:total_)?d\S+ compte[zr]?(?![-_]rendu) dénombre[zr]? wie_?viele anzahl zähle?n?"
        r" cuánt[oa]s número_de cuente contar"
        r" cuenta quant[ie](?!_per) quant[oa]s conta(?:re|te)? conte",
        "多少个|有多少|几个|数量|计数|数一数")),
    (Task.REGRESSION, _pattern_of(
        r"pourcentage prozent\w* porcentaje percentuale porcentagem quel_âge wie_alt qué_edad quale_età que_idade"
        r" âge alter angle winkel wie_(?:groß|lang|hoch|breit|dick|tief|weit)"
        r" ángulo angolo ângulo mesure[zr]? messe?n? mide mida medir misura taille größe tamaño diamètre durchmesser"
        r" diámetro diametro"
        r" diâmetro estime[zr]? schätze?n? estim[ae]",
        "百分比|年龄|角度|多大|直径|测量|估计")),
    (Task.CLASSIFICATION, _pattern_of(
        r"oui_ou_non ja_oder_nein sí_o_no sì_o_no sim_ou_não est-ce_qu\w* y_a-t-il montre-t-\w+"
        r" quel(?:le)?_est_le_(?:diagnostic|type|stade)"
        r" welche[rs]? gibt_es ist_(?:das|die|der|ein|eine|auf) zeigt hay es_(?:esta|este|una?) c'è"
        r" è_(?:presente|visibile) há"
        r" klassifizier\w* classifi\w* clasific\w* diagnos\w* diagnóstico",
        "是否|是不是|有没有|诊断|分类|哪种|哪一")),
    (Task.REPORT, _pattern_of(
        r"décri\w* compte[-_]rendu rapport rédige\w* beschreib\w* befund\w* bericht\w* describ\w* informe redact\w*"
        r" descrev\w* laudo"
        r" relatório descriv\w* referto",
        "描述|报告|所见")),
)  # fmt: skip
_ENGLISH = pattern(any_of("the what which how is are this these does of with and give please"))


def foreign_pattern(text: str) -> Task | None:
    """The task that a text in another language asks for; None for English, or where no cue is known."""
    if len(_ENGLISH.findall(text)) > 1 or _IMAGE.search(text) is None:
        return None
    return next((task for task, pattern_of in _PATTERNS if pattern_of.search(text)), None)
