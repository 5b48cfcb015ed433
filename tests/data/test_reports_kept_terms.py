"""Terms of radiology that no rule may take for PHI: a list written without a look at the lexicon (bar D4)."""

from __future__ import annotations

import pytest

from components.reports.deid.engine import Deidentifier
from components.reports.deid.span import StudyContext

UNSEEN = """
Bouveret syndrome;Rigler sign;Chilaiditi syndrome;Mounier-Kuhn syndrome;Kartagener syndrome;Swyer-James syndrome
Caplan syndrome;Löffler syndrome;Churg-Strauss vasculitis;Osler-Weber-Rendu disease;Birt-Hogg-Dubé syndrome
Hirschsprung disease;Ladd bands;Meigs syndrome;Fitz-Hugh-Curtis syndrome;Mallory-Weiss tear;Boerhaave syndrome
Dieulafoy lesion;Ogilvie syndrome;Peutz-Jeghers polyps;Gardner syndrome;Lynch syndrome;Turcot syndrome
Wernicke encephalopathy;Creutzfeldt-Jakob disease;Sturge-Weber syndrome;von Hippel-Lindau disease
Lhermitte-Duclos disease;Rasmussen encephalitis;Tolosa-Hunt syndrome;Moyamoya disease;Susac syndrome
Hangman fracture;Jefferson fracture;Clay-shoveler fracture;Jones fracture;Maisonneuve fracture;Pilon fracture
Bennett fracture;Rolando fracture;Galeazzi fracture;Essex-Lopresti injury;Tillaux fracture;Malgaigne fracture
Hoffa fat pad;Hoffa fracture;Pellegrini-Stieda lesion;Freiberg infraction;Köhler disease;Sever disease
Haglund deformity;Madelung deformity;Sprengel deformity;Klippel-Feil anomaly;Perthes disease;Blount disease
Weber B fracture;Gustilo type II fracture;Neer classification;Hill-Sachs lesion;Bankart lesion;Mason type 1
vein of Labbé;vein of Trolard;circle of Willis;foramen of Monro;ligament of Treitz;ampulla of Vater
artery of Adamkiewicz;foramen of Winslow;sphincter of Oddi;valve of Vieussens;duct of Santorini;cave of Meckel
fissure of Sylvius;fossa of Rosenmüller;aqueduct of Sylvius;islets of Langerhans;line of Schwalbe;canal of Schlemm
Denonvilliers fascia;Rotter nodes;Rouviere nodes;Batson plexus;Kiesselbach plexus;Waldeyer ring;Cloquet node
Tarlov cyst;Bochdalek hernia;Morgagni hernia;Spigelian hernia;Richter hernia;Amyand hernia;Grynfeltt hernia
Pancoast tumor;Krukenberg tumors;Klatskin tumor;Sister Mary Joseph nodule;Courvoisier gallbladder;Murphy sign
Golden S sign;Westermark sign;Hampton hump;Fleischner sign;Luftsichel sign;Cullen sign;Grey Turner sign
Codman triangle;Looser zones;Harris lines;Schmorl node;Scheuermann kyphosis;Andersson lesion;Romanus lesion
Kellgren-Lawrence grade 3;Outerbridge grade II;Pfirrmann grade 4;Meyerding grade 1;Salter-Harris II;Gartland III
Todani type I;Mirizzi syndrome;Strasberg type E;Forrest class;Hinchey stage II;Balthazar grade D;Marshall score
Agatston score 312;Framingham risk;Wells score;Geneva score;Mehran score;Brock model;Mayo risk model;Lugano stage
Spetzler-Martin grade 2;Cognard type;Borden type;Hunt and Hess grade 3;Fisher grade 4;Koos grade;Knosp grade 2
Dobbhoff tube;Blakemore tube;Minnesota tube;Salem sump tube;Malecot catheter;Pigtail catheter;Tesio catheter
Quinton catheter;Hickman line;Broviac catheter;Groshong catheter;Port-a-Cath;Denver shunt;LeVeen shunt
Simon Nitinol filter;Gunther Tulip filter;Celect filter;TrapEase filter;Bird's Nest filter;Amplatzer plug
St. Jude valve;Carpentier-Edwards valve;Starr-Edwards valve;Bjork-Shiley valve;Sapien 3 valve;CoreValve
Harrington rods;Luque rods;Kirschner wires;Steinmann pin;Gamma nail;Ilizarov frame;Charnley prosthesis
Blalock-Taussig shunt;Fontan circulation;Glenn shunt;Mustard procedure;Rastelli procedure;Ross procedure
Ivor Lewis esophagectomy;Bricker conduit;Kock pouch;Indiana pouch;Heller myotomy;Toupet fundoplication;Puestow procedure
Seldinger technique;Judkins catheter;Trendelenburg position;Valsalva maneuver;Water's view;Towne view;Caldwell view
Haller index of 3.4;Cobb angle of 23 degrees;Evans index 0.34;Insall-Salvati ratio;Böhler angle;Meary angle
Xenetix 350;Iomeron 400;Omniscan;ProHance;Clariscan;Elucirem;Vueway;Lumason;Definity;Feraheme;Cysto-Conray
GE Discovery CT750 HD;Siemens SOMATOM Drive;Siemens Biograph mCT;Philips Ingenuity;Philips Brilliance iCT 256
Canon Aquilion ONE;Toshiba Aquilion Prime;NAEOTOM Alpha;GE Revolution Apex;United Imaging uCT 780;Optima CT660
C2-C3;C7;T4;T11-T12;L1;L2-L3;L5/S1;S1-S2;T5 through T8;left 3rd rib;right 7th through 9th ribs;rib 11
segment VI;segments 2 and 3;segment IVb;hepatic segment 8;zone 2;station 7;
stations 4R and 10L;level IIA;Gruntzig balloon
series 301 image 44;se 4 im 62;images 22-31;image 12 of 88;axial image 103;slice 57;series 5/image 120;(3:45)
ACR TI-RADS 4;LI-RADS LR-5;Lung-RADS 4B;BI-RADS 4A;PI-RADS 5;O-RADS 3;C-RADS C2;CAD-RADS 4A;VI-RADS 3;NI-RADS 2
120 kVp;250 mAs;CTDIvol 8.4 mGy;DLP 512 mGy-cm;effective dose 6 mSv;10 mCi of F-18 FDG;SUVmax 12.4;-45 HU;1,200 HU
0.625 mm;5 x 4 x 3 cm;2.3 x 1.9 cm;17 mm;10-15 mm;1.5 cc;350 mL;6 French;12 Fr;18 gauge;64 bpm;98%;3.0 T;1.5T
pT2N0M0;T4bN2M1a;stage IVB;ypT3;grade 3/5;ECOG 1;ISUP grade group 2;4+3;Gleason 3+4=7;Breslow 2.1 mm;Ki-67 20%
""".replace("\n", ";")
CONTEXTS = (
    "There is {} on this study.",
    "FINDINGS: {}.",
    "Again seen is {}, unchanged from prior.",
    "No evidence of {}.",
)
deidentify = Deidentifier()


def terms() -> list[str]:
    return [term for term in UNSEEN.split(";") if term]


def test_the_list_is_long_enough() -> None:
    assert len(terms()) >= 200


@pytest.mark.parametrize("context", CONTEXTS)
def test_unseen_terms_are_kept(context: str) -> None:
    changed = []
    for term in terms():
        text = context.format(term)
        new = deidentify(text, StudyContext()).text
        if new != text:
            changed.append(new)
    assert not changed


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_unseen_terms_are_kept_in_any_case(case: type) -> None:
    changed = []
    for term in terms():
        text = case(f"There is {term} on this study. The lungs are clear and the heart is normal.")
        new = deidentify(text, StudyContext()).text
        if new != text:
            changed.append(new)
    assert not changed
