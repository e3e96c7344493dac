// Puts pages that tell how to do something before those that hold long tables or tell how the pool is made. Without
// this the search orders pages that hold the same words by their names.
var Scorer = {
  score: ([page, title, anchor, description, score]) => {
    if (/^(hosts|scripts|performance|startup|findings|architecture|design|contributing|changelog)$/.test(page)) {
      return score - 8;
    }
    if (page.startsWith("reference/") || page === "glossary") {
      return score;
    }
    return score + (/^(logging|options|supervision)$/.test(page) ? 5 : 4);
  },
  // The rest is as Sphinx has it.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
