/* tokenizer.h - what a tokenizer is made of.
 *
 * Text goes through a list of steps. Each makes of a piece of text one or more other pieces; what is left behind the
 * last becomes tokens: characters first, then the two neighbours whose merge is the best, until none can be merged. The
 * readers (tokenizer_json.c, tokenizer_gguf.c) only write this down:
 *
 *     "Hello <|end|>" --added--> "Hello ", <|end|> --split--> "Hello", " " --bytes--> "Hello", "\u0120" --merges--> ids
 */
#ifndef QN_EVAL_TOKENIZER_H
#define QN_EVAL_TOKENIZER_H
#include "model.h"
#include "pattern.h"
#include "text.h"

/* ---- Words to numbers -------------------------------------------------------------------------------------------- */

typedef struct qn__word {
  const char *text; /* NULL: free */
  uint32_t n;
  int32_t id;
} qn__word;

typedef struct qn__lexicon {
  qn__word *slot;
  size_t cap, longest;
} qn__lexicon;

qn_status qn__lexicon_init(qn__lexicon *l, size_t most);
void qn__lexicon_fini(qn__lexicon *l);
void qn__lexicon_put(qn__lexicon *l, const char *text, size_t n, int32_t id); /* of two, the later one is found */
int32_t qn__lexicon_find(const qn__lexicon *l, const char *text, size_t n);   /* -1: there is none */
int32_t qn__lexicon_longest(const qn__lexicon *l, const char *text, size_t n,
                            size_t *length); /* with which it begins */

/* ---- Tokens ------------------------------------------------------------------------------------------------------ */

typedef struct qn__token {
  const char *text; /* as the vocabulary writes it; NULL: no token has this id */
  uint32_t n;
  uint16_t byte; /* of "<0x0A>", plus one; 0: it is no such token */
  float score;
  bool literal; /* an added token, which is written as it stands in the text; of such ones: */
  bool whole_word, strip_left, strip_right; /* not within a word; with the spaces before it, behind it */
} qn__token;

/* Added tokens that are searched for at one point of the list of steps. */
typedef struct qn__added {
  qn__lexicon words;
  bool first[256]; /* bytes that begin one */
} qn__added;

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

typedef enum qn__step_kind {
  QN_STEP_ADDED,     /* tokens in between are cut out */
  QN_STEP_PREPEND,   /* `text` is put before, unless the piece begins with `unless` */
  QN_STEP_REPLACE,   /* matches of the pattern become `text` */
  QN_STEP_NORMALIZE, /* a normal form of Unicode */
  QN_STEP_BYTES,     /* each byte becomes a character that can be seen (GPT-2's table) */
  QN_STEP_SPLIT      /* between matches and what is none */
} qn__step_kind;

/* What a split does with matches; the names are tokenizer.json's. */
typedef enum qn__split {
  QN_SPLIT_ISOLATED,
  QN_SPLIT_REMOVED,
  QN_SPLIT_PREVIOUS,
  QN_SPLIT_NEXT,
  QN_SPLIT_ALIKE
} qn__split;

typedef struct qn__step {
  qn__step_kind kind;
  const qn__added *added;
  pcre2_code *pattern;
  const char *text, *unless; /* unless: NULL, always */
  bool at_start;             /* PREPEND: to the piece that the text begins with */
  int form;                  /* NORMALIZE: options of utf8proc */
  qn__split split;
  bool invert; /* SPLIT: what is no match counts as one */
} qn__step;

enum { QN_STEPS = 32 };

/* ---- Merges ------------------------------------------------------------------------------------------------------ */

typedef struct qn__merge {
  int32_t left, right, rank, id; /* tokens; the one that both become */
  bool used;
} qn__merge;

enum { QN_SHOWN = 324, QN_LONGEST = 8192 }; /* of GPT-2's characters; bytes of a token */

struct qn__tokenizer {
  qn__arena arena;
  const char *refusal, *about;
  qn__token *token; /* by id */
  int64_t size, tokens;
  qn__lexicon words; /* of tokens that characters and merges can make */
  qn__merge *merge;  /* open addressing; NULL: merges are by score */
  size_t merge_cap;
  bool ignore_merges;        /* a piece that is a word is that token */
  bool fuse_unknown;         /* neighbours without a token are one unknown token */
  bool by_bytes;             /* a character without a token is the tokens of its bytes */
  int32_t unknown;           /* -1: there is none */
  int32_t byte_id[256];      /* "<0x0A>"; -1: there is none */
  uint16_t shown[256];       /* GPT-2's characters for bytes */
  int16_t byte_of[QN_SHOWN]; /* and back; -1: it stands for none */
  qn__added raw, normalized;
  qn__step step[QN_STEPS];
  int steps;
  bool byte_level;   /* tokens are written in GPT-2's characters */
  const char *space; /* what is written for a space; NULL: a space */
  bool prefix;       /* a space may be put before the text */
  qn__bos bos;
};

/* ---- For the readers --------------------------------------------------------------------------------------------- */

/* They return QN_E_SHAPE for what is no fault but cannot be read: that becomes the tokenizer's refusal. */
qn_status qn__tokenizer_from_gguf(qn__tokenizer *t, const qn_model *m);
qn_status qn__tokenizer_from_json(qn__tokenizer *t, const char *path);

/* Ids below `size`. Texts stay where they are. word: merges can make it. QN_E_FORMAT: it is no UTF-8. */
qn_status qn__tokens_room(qn__tokenizer *t, int64_t size);
qn_status qn__tokens_put(qn__tokenizer *t, int64_t id, const char *text, size_t n, bool word);

qn_status qn__merges_room(qn__tokenizer *t, size_t most);
/* The merge of two words. QN_E_FORMAT: one of them, or both together, is none. */
qn_status qn__merges_put(qn__tokenizer *t, const char *left, size_t left_n, const char *right, size_t right_n,
                         int32_t rank);
const qn__merge *qn__merges_find(const qn__tokenizer *t, int32_t left, int32_t right); /* NULL: there is none */

/* Search for token `id` by a text, which stays where it is. */
void qn__added_put(qn__added *a, const char *text, size_t n, int32_t id);

/* Add a step; pattern: NULL, or what becomes its pattern. */
qn_status qn__step_add(qn__tokenizer *t, qn__step step, const char *pattern, bool literal);

extern const char qn__gpt2_pattern[];

/* How a GGUF calls it that text is split by these expressions, one after the other: out, or NULL if it has no name. */
const char *qn__tokenizer_pre(const char *const *pattern, size_t n, bool ignore_merges, char out[32]);

/* ---- Encoding ---------------------------------------------------------------------------------------------------- */

typedef struct qn__symbol {
  const char *text;
  uint32_t n;          /* 0: it was merged into the one before */
  int32_t id;          /* -1: no word */
  int64_t left, right; /* neighbours; -1 */
} qn__symbol;

typedef struct qn__candidate {
  double order; /* least first: a rank, or a score turned round */
  int64_t left, right;
  uint32_t n; /* bytes of both */
  int32_t id;
} qn__candidate;

typedef struct qn__encoder {
  const qn__tokenizer *t;
  int end; /* of the steps; behind them: */
  qn_status (*sink)(struct qn__encoder *e, const char *text, size_t n);
  void *ud; /* the sink's */
  struct {
    char *text;
    size_t n, room;
    pcre2_match_data *data;
  } work[QN_STEPS];
  qn__symbol *symbol;
  qn__candidate *heap;
  size_t symbols, symbol_room, candidates, heap_room;
  qn__ids out;
  size_t out_room;
} qn__encoder;

/* Send a text through the steps from `from` on to the sink. */
qn_status qn__encoder_run(qn__encoder *e, int from, const char *text, size_t n);
void qn__encoder_fini(qn__encoder *e);

qn_status qn__merge_piece(qn__encoder *e, const char *text, size_t n); /* the sink that makes ids */
qn_status qn__encoder_put(qn__encoder *e, int32_t id);

/* Grow an array so that it holds n elements of `size` bytes. QN_E_NOMEM. */
qn_status qn__grow(void *array, size_t *room, size_t n, size_t size);
#endif
