/* test_eval.c - quernel eval on the small checkpoints: what their README says of them, what a comparison says of equal
 * and of different models, tasks, and what is refused. */
#include "cli_fixture.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>

#define VALID "--text $T/text/valid.txt --tokenizer $T/tiny-llama/tokenizer.json --quiet "

static int eval(const char *command) {
  setenv("T", QN_TESTS "/models", 1);
  return cli("quernel eval %s", command);
}

static cJSON *result(const char *command) {
  int status = eval(command);
  ck_assert_msg(status == 0, "%s: %d: %s", command, status, cli_err);
  cJSON *j = cJSON_Parse(cli_out);
  ck_assert_msg(j != NULL, "%s: %.500s", command, cli_out);
  return j;
}

/* The number at a path: "texts.scores.nll.mean". */
static double number(const cJSON *j, const char *path) {
  char copy[256], *rest = copy, *name;
  const cJSON *at = j;
  snprintf(copy, sizeof copy, "%s", path);
  while ((name = strsep(&rest, ".")) != NULL) at = cJSON_GetObjectItemCaseSensitive(at, name);
  ck_assert_msg(cJSON_IsNumber(at), "no number %s", path);
  return at->valuedouble;
}

/* ---- What is known of the models --------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  double nats, margin;
} models[] = {
    {"tiny-llama", 1.06865, 2e-5},          {"tiny-llama-awq4", 1.0707, 5e-4},
    {"tiny-llama-gptq4-act", 1.0689, 5e-4}, {"tiny-llama-q8_0.gguf", 1.0686, 5e-4},
    {"tiny-llama-ct-w8a8", 1.0698, 5e-4},
};

START_TEST(cross_entropy_is_that_of_the_readme) {
  char command[512];
  snprintf(command, sizeof command, "$T/%s " VALID "--ctx 256 --windows 64 --score all --json", models[_i].name);
  cJSON *j = result(command);
  double nats = number(j, "texts.scores.nll.mean");
  ck_assert_msg(fabs(nats - models[_i].nats) <= models[_i].margin, "%s: %.6f, not %.5f", models[_i].name, nats,
                models[_i].nats);
  ck_assert(number(j, "texts.scores.tokens") == 64 * 255);
  ck_assert(fabs(number(j, "texts.scores.bits_per_byte") - nats / M_LN2) < 1e-12);
  cJSON_Delete(j);
}
END_TEST

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

START_TEST(a_model_is_as_good_as_itself) {
  cJSON *j = result("$T/tiny-llama --against $T/tiny-llama " VALID "--windows 8 --json");
  ck_assert(number(j, "texts.scores.kl.max") == 0 && number(j, "texts.scores.delta_nll.mean") == 0);
  ck_assert(number(j, "texts.scores.same_top.mean") == 1 && number(j, "texts.scores.delta_nll.error") == 0);
  ck_assert(number(j, "texts.scores.tokens") == 8 * 127);
  cJSON_Delete(j);
}
END_TEST

START_TEST(a_quantized_model_is_told_from_the_floor) {
  const char *command = "$T/tiny-llama-q4_0.gguf --against $T/tiny-llama " VALID
                        "--text $T/README.md --windows 8 --floor --reference r --json";
  cJSON *j = result(command);
  double kl = number(j, "texts.scores.kl.mean"), floor = number(j, "texts.floor.kl.mean");
  ck_assert_msg(kl > 1e-3 && kl < 1e-2 && floor > 0 && floor < kl / 10, "%g, floor %g", kl, floor);
  ck_assert(number(j, "texts.scores.computed") == number(j, "texts.scores.windows"));
  const cJSON *scores = cJSON_GetObjectItem(cJSON_GetObjectItem(j, "texts"), "scores");
  ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(scores, "by_domain")), 2);
  ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(scores, "w_kl")), (int)number(j, "texts.scores.windows"));
  cJSON *again = result(command); /* it was kept */
  ck_assert(number(again, "texts.scores.computed") == 0 && number(again, "texts.scores.kl.mean") == kl);
  cJSON_Delete(again);
  cJSON_Delete(j);
}
END_TEST

START_TEST(threads_do_not_show) {
  cJSON *one = result("$T/tiny-llama " VALID "--windows 8 --json --threads 1 --store a");
  cJSON *three = result("$T/tiny-llama " VALID "--windows 8 --json --threads 3 --store b");
  ck_assert(cJSON_Compare(one, three, true));
  cJSON_Delete(one);
  cJSON_Delete(three);
}
END_TEST

START_TEST(kernels_of_a_pack_serve_the_layers_that_it_has) {
  ck_assert_int_eq(cli("quernel tune --problem int4.g128:768x256:bf16-f32 --m 1 --family host.gemm --fix ISA=c --fix "
                       "NR=16 --fix MR=2 --no-dense --quiet -o x.qpack"),
                   0);
  cJSON *j = result("$T/tiny-llama-gptq4 x.qpack --against $T/tiny-llama-gptq4 " VALID "--windows 4 --json");
  double kl = number(j, "texts.scores.kl.mean");
  ck_assert(number(j, "served") == 8 && number(j, "dense") == 21);
  ck_assert_msg(kl > 0 && kl < 1e-4, "%g", kl); /* inputs are rounded to bf16 */
  cJSON_Delete(j);
  ck_assert_int_eq(eval("$T/tiny-llama x.qpack --quiet " VALID), 1);
  ck_assert_ptr_nonnull(strstr(cli_err, "x.qpack has no kernel for a layer of "));
}
END_TEST

START_TEST(tables_and_tasks_are_printed) {
  static const char items[] =
      "{\"context\":\"And God said, Let there be\",\"choices\":[\"light\",\"xqz\"],\"answer\":\"A\"}\n"
      "{\"context\":\"And the LORD spake unto\",\"continuation\":\" Moses\"}\n";
  cli_write("qa.jsonl", items, sizeof items - 1);
  ck_assert_int_eq(eval("$T/tiny-llama-gptq4 --against $T/tiny-llama --task qa.jsonl " VALID "--windows 4"), 0);
  static const char *const parts[] = {"4 windows of 256 tokens, each alone; the second half is scored",
                                      "perplexity",
                                      "against ",
                                      "same top",
                                      "McNemar p",
                                      "50.00%"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    ck_assert_msg(strstr(cli_out, parts[i]) != NULL, "no '%s' in\n%s", parts[i], cli_out);
}
END_TEST

/* tiny-llama in the scratch folder, with a NaN in its head. */
static void break_model(void) {
  setenv("T", QN_TESTS "/models", 1);
  ck_assert_int_eq(cli("cp -r $T/tiny-llama broken && chmod -R u+w broken"), 0);
  FILE *f = fopen(cli_path("broken/model.safetensors"), "r+b");
  ck_assert_ptr_nonnull(f);
  uint64_t size;
  ck_assert_uint_eq(fread(&size, sizeof size, 1, f), 1);
  char *text = calloc(1, size + 1);
  ck_assert_uint_eq(fread(text, 1, size, f), size);
  cJSON *header = cJSON_Parse(text), *head = cJSON_GetObjectItem(header, "lm_head.weight");
  long at = (long)cJSON_GetArrayItem(cJSON_GetObjectItem(head, "data_offsets"), 0)->valuedouble;
  ck_assert_int_eq(fseek(f, (long)sizeof size + (long)size + at, SEEK_SET), 0);
  ck_assert_uint_eq(fwrite("\0\x7e", 1, 2, f), 2);
  ck_assert_int_eq(fclose(f), 0);
  cJSON_Delete(header);
  free(text);
}

START_TEST(a_broken_model_has_no_numbers) {
  break_model();
  ck_assert_int_eq(eval("broken " VALID "--windows 4"), 1);
  ck_assert_str_eq(cli_out, "");
  ck_assert_msg(strstr(cli_err, "broken is broken: 508 logits at 508 tokens of 508 are no finite numbers"), "%s",
                cli_err);
  ck_assert_int_eq(eval("$T/tiny-llama --against broken " VALID "--windows 4"), 1);
  ck_assert_msg(strstr(cli_err, "the reference has logits that are no finite numbers"), "%s", cli_err);
  ck_assert_int_eq(eval("broken " VALID "--windows 4 --json --quiet"), 1);
  ck_assert_msg(strstr(cli_err, "broken is broken") != NULL, "%s", cli_err);
  cJSON *j = cJSON_Parse(cli_out);
  ck_assert(j && number(j, "texts.scores.broken_tokens") == 508);
  ck_assert_ptr_null(cJSON_GetObjectItem(cJSON_GetObjectItem(cJSON_GetObjectItem(j, "texts"), "scores"), "nll"));
  cJSON_Delete(j);
  static const char item[] = "{\"context\":\"Let there be\",\"choices\":[\"light\",\"xqz\"],\"answer\":0}\n";
  cli_write("qa.jsonl", item, sizeof item - 1);
  ck_assert_int_eq(eval("$T/tiny-llama --against broken --task qa.jsonl --quiet"), 1);
  ck_assert_msg(strstr(cli_err, "broken is broken: 1 item of 1 of qa.jsonl have") != NULL, "%s", cli_err);
}
END_TEST

/* A signal in the middle: one line says what stays, and the same command goes on from there. */
START_TEST(ended_by_a_signal) {
  const char *command = "$T/tiny-llama " VALID "--ctx 256 --windows 64 --threads 1 --store s";
  char whole[512];
  setenv("T", QN_TESTS "/models", 1);
  int status =
      cli("{ while [ ! -e s/eval/*.log ]; do sleep 0.01; done; read tool <pid; while [ $(cat s/eval/*.log | wc "
          "-c) -lt 1000 ]; do sleep 0.01; done; kill -INT $tool; } & sh -c 'echo $$ >pid; exec quernel eval %s'",
          command);
  ck_assert_int_eq(status, 128 + SIGINT);
  ck_assert_msg(strstr(cli_err, "quernel: interrupted; what was measured is kept in s: the same command goes on"), "%s",
                cli_err);
  snprintf(whole, sizeof whole, "%s --json", command);
  cJSON *j = result(whole);
  double computed = number(j, "texts.scores.computed");
  ck_assert_msg(computed > 0 && computed < 64 && number(j, "texts.scores.windows") == 64, "%g", computed);
  cJSON_Delete(j);
}
END_TEST

/* ---- What is refused --------------------------------------------------------------------------------------------- */

static const struct {
  const char *command;
  int status;
  const char *message;
} refused[] = {
    {"$T/tiny-llama", 2, "--text FILE or --task FILE is needed"},
    {"$T/tiny-llama " VALID "--ctx 512", 2, "--ctx 512: "},
    {"$T/tiny-llama " VALID "--score most", 2, "known: half, all"},
    {"$T/tiny-llama " VALID "--windows 3:x", 2, "windows \"3:x\": a number from 1 on, or FIRST:END:STEP"},
    {"$T/tiny-llama " VALID "--windows 0", 2, "windows \"0\": a number from 1 on"},
    {"$T/tiny-llama " VALID "--windows 5:3", 2, "windows \"5:3\": a number from 1 on, or FIRST:END:STEP with"},
    {"$T/tiny-llama " VALID "--windows 9223372036854775808:", 2, "windows \"9223372036854775808:\": a number"},
    {"$T/tiny-llama " VALID "--windows 1000:", 1, "the first that is wanted is number 1000"},
    {"$T/tiny-llama " VALID "--floor", 2, "--floor goes with --against only"},
    {"$T/tiny-llama --text empty --quiet", 1, "empty: "},
    {"$T/tiny-llama --text short --quiet", 1, "short: its 300 ids are fewer than two windows of 256"},
    {"$T/tiny-llama --text latin --quiet", 1, "latin: "},
    {"$T/tiny-llama --text high.jsonl --quiet", 1, "high.jsonl"},
    {"$T/tiny-llama --task bad.jsonl --quiet", 1, "bad.jsonl:2: it has fewer than two choices"},
    {"$T/tiny-llama-gptq4 --text short --quiet", 1, "tokenizer"},
    {"$T/tiny-llama --against $T/arch/qwen3 --text few.jsonl --ctx 16 --quiet", 1, "they cannot be compared"},
    {"nowhere --text short --quiet", 1, "nowhere"},
    {"$T/tiny-llama nowhere.qpack --text short --quiet", 1, "nowhere.qpack"},
};

START_TEST(what_cannot_be_evaluated_is_named) {
  char text[301];
  memset(text, 'a', 300);
  static const struct {
    const char *name, *text;
  } files[] = {
      {"empty", ""},
      {"few.jsonl", "{\"input_ids\":[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9]}\n"},
      {"latin", "caf\xe9 au lait"},
      {"high.jsonl", "{\"input_ids\":[1,2,256]}\n"},
      {"bad.jsonl", "{\"context\":\"a\",\"continuation\":\"b\"}\n{\"context\":\"a\",\"choices\":[\"b\"],\"gold\":0}\n"},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    cli_write(files[i].name, files[i].text, strlen(files[i].text));
  cli_write("short", text, 300);
  int status = eval(refused[_i].command);
  ck_assert_msg(status == refused[_i].status && strstr(cli_err, refused[_i].message), "%s: %d: %s%s",
                refused[_i].command, status, cli_out, cli_err);
  ck_assert_msg(!*cli_out && !strchr(cli_err, '\n')[1], "%s: %s%s", refused[_i].command, cli_out, cli_err);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  const suite_case cases[] = {
      CASE(cross_entropy_is_that_of_the_readme, (int)(sizeof models / sizeof *models)),
      CASE(a_model_is_as_good_as_itself, 1),
      CASE(a_quantized_model_is_told_from_the_floor, 1),
      CASE(threads_do_not_show, 1),
      CASE(kernels_of_a_pack_serve_the_layers_that_it_has, 1),
      CASE(tables_and_tasks_are_printed, 1),
      CASE(a_broken_model_has_no_numbers, 1),
      CASE(ended_by_a_signal, 1),
      CASE(what_cannot_be_evaluated_is_named, (int)(sizeof refused / sizeof *refused)),
  };
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 300);
}
