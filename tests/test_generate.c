/* test_generate.c - runtime/examples/generate.c writes what the decoder of eval/ does with the same kernels. */
#include "cli_fixture.h"
#include "decoder_fixture.h"

#define GENERATE "'" QN_BUILD "/runtime/examples/example-generate' "
#define MODELS "'" QN_TESTS "/models'/"
#define TUNE                                                                                                           \
  "quernel tune " MODELS "%s --act f32 --m 1,16 --family host.gemm --fix ISA=c --fix NR=16 --fix MR=2 --no-dense "     \
  "--quiet --store s -o p.qpack"
enum { TOKENS = 40, SITES = 64 };

static const char prompt[] = "And God said ";
static const char *const models[] = {"tiny-llama-gptq4", "tiny-llama-q4_0.gguf"};

/* Let the kernels of p.qpack multiply in all sites. */
typedef struct served {
  qn_context *pack;
  qn_gemm *gemm[SITES];
  qn_weight *weight[SITES];
  int n;
} served;

static void serve(served *s, const opened *o) {
  const qn__site *site;
  ck_assert_msg(qn_open(cli_path("p.qpack"), NULL, &s->pack, NULL, 0) == QN_OK, "%s", qn_errmsg());
  s->n = qn__decoder_sites(o->d, &site);
  ck_assert_int_le(s->n, SITES);
  for (int i = 0; i < s->n; i++) {
    const qn_tensor *t = qn_model_find(o->model, site[i].name);
    char problem[128];
    qn_planes *planes;
    snprintf(problem, sizeof problem, "%s:%lldx%lld", t->format, (long long)t->n, (long long)t->k);
    OK(qn_model_planes(o->model, t, 0, &planes));
    OK(qn_bind(s->pack, problem, &s->gemm[i]));
    OK(qn_prepack(s->gemm[i], planes, &s->weight[i]));
    OK(qn__decoder_serve(o->d, i, s->gemm[i], s->weight[i]));
    qn_planes_free(planes);
  }
}

static void leave(served *s) {
  for (int i = 0; i < s->n; i++) qn_weight_free(s->weight[i]), qn_gemm_free(s->gemm[i]);
  qn_close(s->pack);
}

static int32_t likeliest(const opened *o, const float *h) {
  static float logits[VOCAB];
  int32_t best = 0;
  OK(qn__decoder_logits(o->d, h, 1, logits));
  for (int32_t i = 1; i < VOCAB; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

/* What the decoder writes behind the prompt, and a new line. */
static void continue_it(const opened *o, char text[TOKENS + 2]) {
  static float h[sizeof prompt * HIDDEN];
  int32_t ids[sizeof prompt], n = sizeof prompt - 1;
  qn__session *session;
  OK(qn__session_new(o->d, 1, n + TOKENS, &session));
  for (int i = 0; i < n; i++) ids[i] = prompt[i];
  for (int i = 0; i < TOKENS; i++, n = 1) {
    OK(qn__session_step(session, ids, n, h));
    ids[0] = likeliest(o, h + (n - 1) * HIDDEN);
    text[i] = (char)ids[0];
  }
  text[TOKENS] = '\n', text[TOKENS + 1] = 0;
  qn__session_free(session);
}

START_TEST(writes_what_the_decoder_does) {
  char want[TOKENS + 2];
  served s = {0};
  ck_assert_msg(cli(TUNE, models[_i]) == 0, "%s", cli_err);
  ck_assert_msg(cli(GENERATE "p.qpack " MODELS "%s '%s' %d", models[_i], prompt, TOKENS) == 0, "%s", cli_err);
  ck_assert_ptr_nonnull(strstr(cli_err, "tokens/s"));
  opened o = open_model(models[_i], (qn__decoder_options){.threads = 2});
  serve(&s, &o);
  continue_it(&o, want);
  ck_assert_str_eq(cli_out, want);
  close_model(o);
  leave(&s);
}
END_TEST

static const struct {
  const char *arguments;
  int status;
  const char *says;
} refused[] = {
    {"", 2, "usage: generate PACK MODEL"},
    {"nowhere " MODELS "tiny-llama-gptq4", 1, "generate: nowhere: "},
    {"p.qpack nowhere", 1, "generate: nowhere: "},
    {"p.qpack " MODELS "arch/gemma2", 1, "knows Llama's architecture alone"},
    {"p.qpack " MODELS "arch/llama 1", 1, "generate: settings: this example stretches no positions"},
    {"p.qpack biased 1", 1, ".bias: this example adds no bias"},
    {"p.qpack " MODELS "tiny-llama-gptq4 ''", 1, "generate: prompt: it is empty"},
    {"p.qpack " MODELS "tiny-llama-gptq4 a 0", 1, "generate: 0: N must be in 1 .. 1048576"},
    {"p.qpack " MODELS "tiny-llama-awq4 a", 1, "int4.g64.z:256x256"},
};

START_TEST(refuses_what_it_cannot_do) {
  ck_assert_msg(cli(TUNE, models[0]) == 0, "%s", cli_err);
  ck_assert_int_eq(cli("cp -r " MODELS "arch/llama biased && sed -i 's/\"factor\"/\"none\"/' biased/config.json"), 0);
  for (size_t i = 0; i < QN_COUNT(refused); i++) {
    ck_assert_int_eq(cli(GENERATE "%s", refused[i].arguments), refused[i].status);
    ck_assert_msg(strstr(cli_err, refused[i].says) != NULL, "%s, not %s", cli_err, refused[i].says);
    ck_assert_str_eq(cli_out, "");
  }
}
END_TEST

int main(int argc, char **argv) {
  static const suite_case cases[] = {CASE(writes_what_the_decoder_does, QN_COUNT(models)),
                                     CASE(refuses_what_it_cannot_do, 1)};
  (void)argc;
  return RUN_CASES(argv[0], cases, .enter = cli_enter, .leave = cli_leave, .timeout = 300);
}
