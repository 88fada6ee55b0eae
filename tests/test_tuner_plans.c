/* test_tuner_plans.c - plans from laps that the store is made to know: ranges, ties, promises, kinds. */
#include "tuner_runs.h"

typedef struct lap {
  size_t candidate;
  double seconds;
} lap;

static cJSON *evidence_of(const lap *x) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "hash", set.hash[x->candidate]);
  cJSON_AddNumberToObject(j, "seconds", x->seconds);
  cJSON_AddNumberToObject(j, "ratio", 0.99); /* cannot be told from the fastest */
  return j;
}

/* What a candidate took at an M in the race. */
static void know_lap(qn_store *s, int64_t m, const lap *x) {
  char key[400];
  cJSON *j = evidence_of(x);
  snprintf(key, sizeof key, "race %s %s M=%d", set.problem[1].problem.spelling, set.hash[x->candidate], (int)m);
  ck_assert_int_eq(qn__store_put(s, "evidence", key, j), QN_OK);
  cJSON_Delete(j);
}

/* What two candidates took at an M, the faster first: in the race and, if `meet`, in the finals. */
static void know(qn_store *s, int64_t m, const lap laps[2], bool meet) {
  char key[400], both[67], sum[33];
  const char *spelling = set.problem[1].problem.spelling;
  cJSON *finals = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(finals, "finalists");
  for (int i = 0; i < 2; i++) {
    know_lap(s, m, &laps[i]);
    cJSON_AddItemToArray(list, evidence_of(&laps[i]));
  }
  const char *a = set.hash[laps[0].candidate], *b = set.hash[laps[1].candidate];
  snprintf(both, sizeof both, "%s%s", strcmp(a, b) < 0 ? a : b, strcmp(a, b) < 0 ? b : a);
  qn__hash_hex(both, strlen(both), sum);
  snprintf(key, sizeof key, "finals %s M=%d rounds=7 %s", spelling, (int)m, sum);
  if (meet) ck_assert_int_eq(qn__store_put(s, "evidence", key, finals), QN_OK);
  cJSON_Delete(finals);
}

/* Of two that are as fast at M = 4 the one that won at M = 1 goes on, though it is not the cheaper: one range, with
 * what was measured at both. Where it is beaten, there are two. */
static const struct {
  lap at_4[2];
  uint32_t ranges;
} merges[] = {{{{0, 1.000}, {1, 1.005}}, 1}, {{{0, 1.0}, {1, 1.5}}, 2}};

START_TEST(neighbours_that_tie_are_merged) {
  add(NULL, "cheap", "t4.rows");
  add(NULL, "dear", "t4.rows");
  problems();
  qn_store *s = open_store();
  know(s, 1, (lap[]){{1, 1.0}, {0, 1.5}}, false);
  know(s, 4, merges[_i].at_4, merges[_i].ranges == 1);
  qn__store_close(s);
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  const qn_plan *p = plan_of(&r, 1, QN_PLAN_FASTEST);
  ck_assert_uint_eq(p->n_ranges, merges[_i].ranges);
  ck_assert_uint_eq(p->n_points, 2);
  ck_assert_str_eq(p->range[0].variant, set.hash[1]);
  ck_assert_int_eq(p->point[1].m, 4);
  ck_assert_double_eq(p->point[1].seconds, merges[_i].ranges == 1 ? 1.005 : 1.0);
  qn__tune_result_free(&r);
}
END_TEST

/* A kernel serves from where it can, whichever M were tuned. The M before it go to the kernel of the M before, else to
 * the fastest that serves them all. Seconds at each M of the profile; 0: not served. Candidates 0 and 1 serve every M,
 * 0 is the cheaper. */
static const struct {
  int64_t m[3], from[4], to[4];
  double seconds[3][4];
  int64_t begins[3]; /* the plan: where ranges begin, of which candidate */
  size_t of[3];
} begun[] = {
    {{1, 16, 64}, {1, 1, 33}, {0}, {{1, 2}, {1, 2}, {9, 9, 1}}, {1, 33}, {0, 2}},
    {{1, 16, 64}, {1, 1, 33, 1}, {0, 0, 0, 16}, {{2, 3, 0, 1}, {2, 3, 0, 1}, {9, 4, 1}}, {1, 17, 33}, {3, 1, 2}},
    {{1, 16, 64}, {1, 1, 33, 1}, {0, 0, 0, 20}, {{2, 3, 0, 1}, {2, 3, 0, 1}, {4, 9, 1}}, {1, 17, 33}, {3, 0, 2}},
    {{1, 16, 64}, {1, 1, 17, 1}, {0, 0, 0, 16}, {{2, 3, 0, 1}, {2, 3, 0, 1}, {9, 4, 1}}, {1, 17}, {3, 2}},
    {{1, 16, 64}, {1, 1, 9, 1}, {0, 0, 0, 8}, {{2, 3, 0, 1}, {2, 3, 1}, {9, 4, 1}}, {1, 9}, {3, 2}},
    {{64}, {1, 1, 33}, {0}, {{9, 4, 1}}, {1, 33}, {1, 2}},
};

START_TEST(ranges_begin_where_kernels_do) {
  static const char *const remark[] = {"cheap", "dear", "late", "early"};
  size_t n_m = 0, n = 0;
  for (; n < 4 && begun[_i].from[n]; n++) {
    qn_candidate *c = add(NULL, remark[n], "t4.rows");
    c->m_min = begun[_i].from[n], c->m_max = begun[_i].to[n];
  }
  problems();
  qn_store *s = open_store();
  for (; n_m < 3 && begun[_i].m[n_m]; n_m++)
    for (size_t i = 0; i < n; i++)
      if (begun[_i].seconds[n_m][i] > 0) know_lap(s, begun[_i].m[n_m], &(lap){i, begun[_i].seconds[n_m][i]});
  qn__store_close(s);
  qn_tune_options o = options();
  o.m = begun[_i].m, o.n_m = n_m;
  qn_tune_result r = run(&o);
  check_result(&r);
  const qn_plan *p = plan_of(&r, 1, QN_PLAN_FASTEST);
  uint32_t ranges = 0;
  for (; ranges < 3 && begun[_i].begins[ranges]; ranges++) {
    ck_assert_int_eq(p->range[ranges].m_min, begun[_i].begins[ranges]);
    ck_assert_str_eq(p->range[ranges].variant, set.hash[begun[_i].of[ranges]]);
  }
  ck_assert_uint_eq(p->n_ranges, ranges);
  ck_assert_uint_eq(p->n_points, n_m);
  qn__tune_result_free(&r);
}
END_TEST

/* Between two M that were tuned whoever is faster there serves, though neither of them was timed there before: one
 * takes a millisecond for each token, the other for all what that one takes for `like`. */
typedef struct cut {
  int64_t m[2], begins;
  int like;
} cut;

static const cut between[] = {
    {{1, 16}, 5, 5}, {{1, 300}, 5, 5}, {{3, 7}, 5, 5}, {{4, 7}, 5, 5}, {{1, 3}, 3, 2}, {{1, 128}, 3, 2},
};

START_TEST(ranges_are_cut_where_another_is_faster) {
  qn_tune_options o = options();
  add(NULL, "each", "t4.rows");
  add(NULL, "all", "t4.rows");
  problems();
  char answer[96];
  snprintf(answer, sizeof answer, "case $name in each) seconds=${m}e-3;; *) seconds=%d.0e-3;; esac", between[_i].like);
  o.worker = script_worker("", answer);
  o.m = between[_i].m;
  qn_tune_result r = run(&o);
  check_result(&r);
  const qn_plan *p = plan_of(&r, 1, QN_PLAN_FASTEST);
  ck_assert_uint_eq(p->n_ranges, 2);
  ck_assert_str_eq(p->range[0].variant, set.hash[0]);
  ck_assert_str_eq(p->range[1].variant, set.hash[1]);
  ck_assert_int_eq(p->range[1].m_min, between[_i].begins);
  ck_assert_uint_eq(p->n_points, 2);
  qn__tune_result_free(&r);
}
END_TEST

/* Evidence without its numbers, or with such that cannot be, is no evidence: the kernel is asked again. */
START_TEST(evidence_must_tell) {
  add(NULL, "one", "t4.rows");
  add(NULL, "other", "t4.rows");
  problems();
  qn_store *s = open_store();
  cJSON *j = cJSON_CreateObject();
  if (_i) cJSON_AddNumberToObject(j, "error", -1), cJSON_AddNumberToObject(j, "seconds", _i == 1 ? 0 : -1);
  for (int i = 0; i < 2; i++)
    for (int m = 0; m <= 4; m += m ? 3 : 1) {
      char key[400];
      snprintf(key, sizeof key, "verify %s", set.hash[i]);
      if (m) snprintf(key, sizeof key, "race %s %s M=%d", set.problem[1].problem.spelling, set.hash[i], m);
      ck_assert_int_eq(qn__store_put(s, "evidence", key, j), QN_OK);
    }
  cJSON_Delete(j);
  qn__store_close(s);
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_uint_eq(r.counts.verify_known, 0);
  ck_assert_uint_eq(r.counts.timed_known, 0);
  qn__tune_result_free(&r);
}
END_TEST

/* The faster one says that a row's bits do not depend on M, and lies about more tokens than small cases have. */
START_TEST(broken_promise_of_rows_costs_the_place) {
  static const int64_t many[] = {1, 64};
  add("SLOW", "slow", "t4.rows");
  add("DEPENDS_ON_BIG_M", "liar", "t4.rows");
  problems();
  qn_tune_options o = options();
  o.m = many;
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_BATCH_INVARIANT)->range[0].variant, set.hash[0]);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_FASTEST)->range[0].variant, set.hash[0]);
  ck_assert_uint_eq(r.counts.rejected, 1);
  qn__tune_result_free(&r);
}
END_TEST

/* The faster one need not repeat its bits: it serves where that is not asked for. */
START_TEST(deterministic_plan_is_kept_beside_the_fastest) {
  add("SLOW", "slow", "t4.rows");
  qn_candidate *c = add("RANDOM", "random", "t4.rows");
  c->recipe.deterministic = c->recipe.batch_invariant = 0;
  problems();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  check_result(&r);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_FASTEST)->range[0].variant, set.hash[1]);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_DETERMINISTIC)->range[0].variant, set.hash[0]);
  ck_assert_str_eq(plan_of(&r, 1, QN_PLAN_BATCH_INVARIANT)->range[0].variant, set.hash[0]);
  qn__tune_result_free(&r);
}
END_TEST

/* For shapes that were not tuned there are plans of every kind, whose kernel keeps what the kind promises. */
START_TEST(generic_plans_are_of_every_kind) {
  qn_candidate *c = add("RANDOM", "random", "t4.rows");
  c->recipe.deterministic = c->recipe.batch_invariant = 0;
  add(NULL, "good", "t4.rows");
  problems();
  qn_tune_options o = options();
  qn_tune_result r = run(&o);
  for (qn_plan_kind kind = 0; kind < QN_PLAN_KINDS; kind++) {
    const qn_plan *p = generic_plan(&r, kind);
    ck_assert_msg(p != NULL, "kind %d has no plan", kind);
    ck_assert_str_eq(p->range[0].variant, set.hash[kind != QN_PLAN_FASTEST]);
  }
  qn__tune_result_free(&r);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(neighbours_that_tie_are_merged, QN_COUNT(merges)),
      CASE(ranges_begin_where_kernels_do, QN_COUNT(begun)),
      CASE(ranges_are_cut_where_another_is_faster, QN_COUNT(between)),
      CASE(evidence_must_tell, 3),
      CASE(broken_promise_of_rows_costs_the_place, 1),
      CASE(deterministic_plan_is_kept_beside_the_fastest, 1),
      CASE(generic_plans_are_of_every_kind, 1),
  };
  return RUN_CASES(argv[0], cases, init, fini, 120);
}
