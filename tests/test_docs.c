/* test_docs.c - the documentation is true: what README.md, CONTRIBUTING.md and docs/ tell people to type is run.
 *
 * A page is a test case. Its fenced blocks run in order in one scratch folder that looks like a clone: links to the
 * folders of the source tree, and `build` for this build. The HTML comment on the line before a fence decides:
 *
 *   ```sh                                     runs, and every command must exit 0; exports last until the page ends
 *   <!-- file: NAME -->      any language     is written to NAME, for the commands that follow
 *   <!-- not run: WHY -->    any language     is counted, and printed with its reason
 *   ``` without a language                    is output, and left alone
 *
 * A block in another language must have one of these comments. What is measured is kept for all pages. */
#include "cli_fixture.h"
#include <glob.h>
#include <regex.h>
#include <stdbool.h>

typedef enum kind { RUN, WRITE, SKIP, UNMARKED } kind;

typedef struct block {
  kind kind;
  int line;       /* of the fence */
  char mark[160]; /* name of the file, or why it is not run */
  char *text;
} block;

enum { PAGES = 32, BLOCKS = 128 };

typedef struct page {
  const char *name;
  block block[BLOCKS];
  int n;
} page;

static page pages[PAGES];
static int n_pages;

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static void append(char **text, const char *line) {
  size_t old = *text ? strlen(*text) : 0;
  *text = realloc(*text, old + strlen(line) + 1);
  strcpy(*text + old, line);
}

/* The block that a fence begins, by its language and the line before it; NULL: it is output. */
static block *begin(page *p, const char *fence, const char *before, int line) {
  char language[32] = "";
  sscanf(fence, "```%31[a-z]", language);
  if (!*language) return NULL;
  block *b = &p->block[p->n++];
  *b = (block){.kind = strcmp(language, "sh") ? UNMARKED : RUN, .line = line, .text = strdup("")};
  if (sscanf(before, "<!-- file: %159[^ ] -->", b->mark) == 1) b->kind = WRITE;
  if (sscanf(before, "<!-- not run: %159[^\n]", b->mark) == 1) b->kind = SKIP;
  if (b->kind == SKIP && strstr(b->mark, " -->")) *strstr(b->mark, " -->") = 0;
  return b;
}

static void read_page(const char *name) {
  char path[512], line[1024], before[1024] = "";
  page *p = &pages[n_pages++];
  snprintf(path, sizeof path, "%s/%s", QN_SOURCE, name);
  FILE *f = fopen(path, "r");
  bool open = false;
  block *b = NULL;
  p->name = strdup(name);
  for (int i = 1; f && fgets(line, sizeof line, f); i++) {
    if (strncmp(line, "```", 3)) {
      if (b) append(&b->text, line);
    } else {
      open = !open;
      b = open ? begin(p, line, before, i) : NULL;
    }
    strcpy(before, line);
  }
  if (f) fclose(f);
}

static void read_pages(void) {
  glob_t found;
  read_page("README.md");
  read_page("CONTRIBUTING.md");
  if (!glob(QN_SOURCE "/docs/*.md", 0, NULL, &found))
    for (size_t i = 0; i < found.gl_pathc; i++) read_page(found.gl_pathv[i] + strlen(QN_SOURCE "/"));
  globfree(&found);
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

static void enter(void) {
  cli_enter();
  ck_assert_int_eq(cli("for f in %s/*/; do case $f in */build*) ;; *) ln -s ${f%%%%/} . ;; esac; done; ln -s %s build; "
                       "export -p >.exports",
                       QN_SOURCE, QN_BUILD),
                   0);
}

/* The commands as a script in which each has the number of its line on the page. */
static void run(const page *p, const block *b) {
  char *script = NULL;
  append(&script, ". ./.exports; set -eu; trap 'echo \"$LINENO: $BASH_COMMAND\" >.failed' ERR\n");
  for (int i = 1; i < b->line; i++) append(&script, "\n");
  append(&script, b->text);
  append(&script, "\nexport -p >.exports\n");
  cli_write(".script", script, strlen(script));
  free(script);
  if (!cli("rm -f .failed; QUERNEL_CACHE=$STORE bash .script")) return;
  char failed[1024];
  cli_read(".failed", failed, sizeof failed);
  ck_abort_msg("%s:%s\n%.3000s%.3000s", p->name, *failed ? failed : "a block that bash cannot read", cli_out, cli_err);
}

static void check(const page *p, int i) {
  const block *b = &p->block[i];
  if (b->kind == RUN) run(p, b);
  if (b->kind == WRITE) cli_write(b->mark, b->text, strlen(b->text));
  if (b->kind == UNMARKED)
    ck_abort_msg("%s:%d: a block that is neither run, nor a file, nor said to be not run", p->name, b->line);
}

START_TEST(blocks) { check(&pages[_i / BLOCKS], _i % BLOCKS); }
END_TEST

/* ---- Names of files ---------------------------------------------------------------------------------------------- */

/* What a page points to is there: links, from its folder, and names of files between backquotes, from the root. */
#define POINTER "\\]\\(([^)#:]+)[)#]|`((base|eval|runtime|gen|cache|tuner|lua|templates|tests|docs)/[a-z0-9_/.-]*)`"

static void check_pointer(const page *p, int line, const char *text, regmatch_t at, const char *folder) {
  char path[1024];
  if (at.rm_so < 0) return;
  snprintf(path, sizeof path, "%s/%s%.*s", QN_SOURCE, folder, (int)(at.rm_eo - at.rm_so), text + at.rm_so);
  ck_assert_msg(!access(path, F_OK), "%s:%d: there is no %s", p->name, line, path);
}

START_TEST(pointers) {
  const page *p = &pages[_i];
  char path[512], text[1024], folder[64] = "";
  regex_t re;
  regmatch_t at[3];
  if (strchr(p->name, '/')) snprintf(folder, sizeof folder, "%.*s/", (int)(strchr(p->name, '/') - p->name), p->name);
  snprintf(path, sizeof path, "%s/%s", QN_SOURCE, p->name);
  ck_assert_int_eq(regcomp(&re, POINTER, REG_EXTENDED), 0);
  FILE *f = fopen(path, "r");
  ck_assert_msg(f != NULL, "%s cannot be read", path);
  for (int line = 1; fgets(text, sizeof text, f); line++)
    for (const char *s = text; !regexec(&re, s, 3, at, 0); s += at[0].rm_eo) {
      check_pointer(p, line, s, at[1], folder);
      check_pointer(p, line, s, at[2], "");
    }
  fclose(f);
  regfree(&re);
}
END_TEST

static void count(void) {
  int run = 0, skipped = 0;
  for (const page *p = pages; p < pages + n_pages; p++)
    for (const block *b = p->block; b < p->block + p->n; b++) {
      run += b->kind != SKIP, skipped += b->kind == SKIP;
      if (b->kind == SKIP) printf("not run: %s:%d: %s\n", p->name, b->line, b->mark);
    }
  printf("%d blocks, %d not run\n", run + skipped, skipped);
}

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("docs");
  read_pages();
  for (int i = 0; i < n_pages; i++) {
    TCase *t = tcase_create(pages[i].name);
    tcase_add_unchecked_fixture(t, enter, cli_leave);
    tcase_add_loop_test(t, pointers, i, i + 1);
    tcase_add_loop_test(t, blocks, i * BLOCKS, i * BLOCKS + pages[i].n);
    tcase_set_timeout(t, 900);
    suite_add_tcase(s, t);
  }
  snprintf(cli_store, sizeof cli_store, "/tmp/quernel-store-XXXXXX");
  if (!mkdtemp(cli_store)) return 1;
  setenv("STORE", cli_store, 1);
  int failed = run_suite(s, argv[0]);
  cli_store_leave();
  count();
  return failed;
}
