/* test_reports.c - with --json a verb prints one JSON document and nothing else, and its keys are where scripts look.
 *
 * A row is a command and keys, in order, of its document: "a.b" leads into objects, "0" into a list. QN_CASE=N runs row
 * N alone. */
#include "cli_fixture.h"
#include <cJSON.h>
#include <stdbool.h>

#define TUNE "quernel tune --problem int4.g32:64x64:f32-f32 --m 1,4 --quiet -o x.qpack --store $STORE --json"
#define PACKED TUNE " >tuned && "

static const struct {
  const char *command, *keys[4];
} rows[] = {
    {"quernel devices --json", {"devices.0.threads"}},
    {"quernel formats --json", {"0.name"}},
    {"quernel kernels --json --space quick --problem int4.g32:64x64", {"families.0.family", "variants.0"}},
    {"quernel explain cuda.mma/int4.g128/f16-f16/bm32-bn64-bk128-wn4-s4-sum-k1 --shape 64x512 --m 30 "
     "--json",
     {"bounds.occupancy.ctas", "bounds.predicted.issue", "bounds.counters.kinds.mma", "registers"}},
    {"quernel inspect " QN_TESTS "/models/tiny-llama-gptq4 --json", {"dialect"}},
    {"quernel verify --problem f32:32x32:f32-f32 --space quick --store $STORE --json", {"verified", "rejected"}},
    {TUNE, {"counts.timed", "plans.0.ranges.0.variant", "plans.0.ranges.0.points.1.seconds", "pack"}},
    {PACKED "quernel pack x.qpack --json", {"hash", "plans.0.ranges.0.variant", "kernels.0.name", "devices.0.product"}},
    {PACKED "quernel report x.qpack --json", {"packs.0.hash", "problems.0.points.1.seconds"}},
    {PACKED "quernel verify x.qpack --json", {"0.variant", "0.error"}},
    {PACKED "quernel bench x.qpack --m 1 --reps 1 --json", {"0.seconds", "0.dense_by"}},
    {"quernel store gc --store $STORE --json", {"removed", "kept"}},
    {"quernel kernels --compile-all --family host.gemv --fix ISA=c --fix NR=16 --problem f32:32x32:f32-f32 --json",
     {"0.list.0.registers", "0.rate", "0.spilling"}},
    {"quernel explain int4.g128:256x256 --store $STORE --json", {"families.0.removed.0.why", "variants"}},
    {"quernel explain $(quernel kernels --list --space quick | head -1) --store $STORE --json",
     {"params", "recipe.steps.0", "layout.name", "spills"}},
    {PACKED "quernel store list --store $STORE --json", {"machines.0.evidence"}},
    {"quernel tradeoff " QN_TESTS "/models/tiny-llama --text " QN_TESTS "/models/text/valid.txt --windows 4 --ctx 64 "
     "--only int8.row:rtn:i8 --budget 20 --store $STORE --quiet -o out --json && grep -q '<svg' out/tradeoff.html",
     {"verdict.sentences.0", "candidates.1.kl.mean", "candidates.1.bytes", "floor"}},
};

static const cJSON *walk(const cJSON *at, const char *keys) {
  char path[128], *save;
  snprintf(path, sizeof path, "%s", keys);
  for (char *key = strtok_r(path, ".", &save); key && at; key = strtok_r(NULL, ".", &save))
    at = cJSON_IsArray(at) ? cJSON_GetArrayItem(at, atoi(key)) : cJSON_GetObjectItemCaseSensitive(at, key);
  return at;
}

START_TEST(is_one_document) {
  const char *only = getenv("QN_CASE");
  if (only && atoi(only) != _i) return;
  int status = cli("%s", rows[_i].command);
  char again[512];
  snprintf(again, sizeof again, "again: QN_CASE=%d %s/tests/test_reports", _i, QN_BUILD);
  ck_assert_msg(status == 0 && !*cli_err, "%s: exit %d\n%s%s\n%s", rows[_i].command, status, cli_out, cli_err, again);
  cJSON *report = cJSON_ParseWithOpts(cli_out, NULL, 1);
  ck_assert_msg(report != NULL, "%s: not one JSON document:\n%.2000s\n%s", rows[_i].command, cli_out, again);
  for (int k = 0; k < 4 && rows[_i].keys[k]; k++)
    ck_assert_msg(walk(report, rows[_i].keys[k]) != NULL, "%s: no %s in\n%.2000s\n%s", rows[_i].command,
                  rows[_i].keys[k], cli_out, again);
  cJSON_Delete(report);
}
END_TEST

/* ---- Spaces ------------------------------------------------------------------------------------------------------ */

/* For one problem, enough variants survive the rules, and not too many to be timed at some numbers of tokens; on the
 * host they compete in several layouts. */
static const struct {
  const char *arch, *families;
  int least, most, pairs, layouts;
} spaces[] = {{"sm_80", "cuda.mma", 60, 120, 400, 1},
              {"sm_90a", "cuda.", 120, 350, 900, 1},
              {"sm_120a", "cuda.decode", 25, 100, 400, 1},
              {"host", "host.", 40, 400, 2000, 2}};

static bool serves(const cJSON *v, int m) {
  int least = walk(v, "m_min")->valueint, most = walk(v, "m_max")->valueint;
  return m >= least && (!most || m <= most);
}

START_TEST(space_is_rich) {
  static const int tokens[] = {1, 4, 16, 64, 256}; /* those of tune */
  const char *layouts[8];
  int variants = 0, pairs = 0, n = 0;
  int status = cli("quernel kernels --problem int4.g128:8192x8192 --arch %s --json", spaces[_i].arch);
  cJSON *report = cJSON_Parse(cli_out);
  ck_assert_msg(status == 0 && report, "%s: exit %d\n%s", spaces[_i].arch, status, cli_err);
  const cJSON *v;
  cJSON_ArrayForEach(v, walk(report, "variants")) {
    if (strncmp(walk(v, "family")->valuestring, spaces[_i].families, strlen(spaces[_i].families))) continue;
    const char *layout = walk(v, "layout")->valuestring;
    int known = 0;
    while (known < n && strcmp(layouts[known], layout)) known++;
    if (known == n && n < 8) layouts[n++] = layout;
    variants++;
    for (int i = 0; i < 5; i++) pairs += serves(v, tokens[i]);
  }
  ck_assert_msg(variants >= spaces[_i].least && variants <= spaces[_i].most && pairs <= spaces[_i].pairs &&
                    n >= spaces[_i].layouts,
                "%s: %d variants, %d with a number of tokens, in %d layouts", spaces[_i].arch, variants, pairs, n);
  cJSON_Delete(report);
}
END_TEST

/* Few features leave a GPU idle unless CTAs share K: some variant for these tokens has a CTA for almost each of its
 * multiprocessors. */
START_TEST(device_is_filled) {
  static const int tokens[] = {64, 128, 256};
  static const char *const shapes[] = {"4096x4096", "4096x14336"};
  int m = tokens[_i % 3], best = 0;
  ck_assert_int_eq(cli("quernel kernels --problem int4.g128:%s:f16-f16 --arch sm_90a --json", shapes[_i / 3]), 0);
  cJSON *report = cJSON_Parse(cli_out);
  const cJSON *v;
  cJSON_ArrayForEach(v, walk(report, "variants")) {
    int bm, bn, split;
    const char *name = walk(v, "name")->valuestring, *values = strrchr(name, '/');
    if (!serves(v, m) || sscanf(values, "/bm%d-bn%d-%*[^k]k%*d-wn%*d-s%*d-%*[a-z]-k%d", &bm, &bn, &split) != 3)
      continue;
    int ctas = (m + bm - 1) / bm * ((4096 + bn - 1) / bn) * split;
    if (ctas > best && ctas <= 2 * 132) best = ctas;
  }
  ck_assert_msg(best >= 120, "%s, M = %d: %d CTAs", shapes[_i / 3], m, best);
  cJSON_Delete(report);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("reports");
  TCase *t = tcase_create("json");
  tcase_add_unchecked_fixture(t, cli_store_enter, cli_store_leave);
  tcase_add_checked_fixture(t, cli_enter, cli_leave);
  tcase_add_loop_test(t, is_one_document, 0, (int)(sizeof rows / sizeof *rows));
  tcase_add_loop_test(t, device_is_filled, 0, 6);
  tcase_add_loop_test(t, space_is_rich, 0, (int)(sizeof spaces / sizeof *spaces));
  tcase_set_timeout(t, 300);
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
