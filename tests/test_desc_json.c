/* test_desc_json.c - descriptors through JSON: nothing is lost, what the generator writes is understood, and each thing
 * that may be wrong is refused by name. */
#include "desc_json.h"
#include "hash.h"
#include "json.h"
#include "lua_problem.h"
#include "runtime_fixture.h"
#include "store.h"
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>

/* ---- Nothing is lost --------------------------------------------------------------------------------------------- */

/* Text of a JSON value, which is deleted. */
static char *text_of(cJSON *j) {
  char *text = cJSON_PrintUnformatted(j);
  cJSON_Delete(j);
  ck_assert_ptr_nonnull(text);
  return text;
}

static cJSON *parsed(const char *text) {
  cJSON *j = cJSON_Parse(text);
  ck_assert_msg(j != NULL, "no JSON: %s", text);
  return j;
}

static cJSON *reparsed(cJSON *j) {
  char *text = text_of(j);
  cJSON *again = parsed(text);
  cJSON_free(text);
  return again;
}

static const struct {
  uint32_t bits, group;
  bool zero;
} shapes[] = {{4, 32, false}, {4, 128, true}, {8, 64, true}, {3, 0, false}};

static qn_format shape_format(int i) {
  qn_format f = make_format(shapes[i].bits, shapes[i].group, shapes[i].zero);
  if (i == 3) { /* a table, 256 values that decimal fractions do not hold */
    f.n_tables = 1;
    for (int k = 0; k < QN_FORMAT_TABLE; k++) f.table[0][k] = (float)k / 3.0f - 1e-30f;
    f.decode = (qn_pool){0};
    in_pool(&f.decode, EXPR(op_var(0), (qn_expr_op){.code = QN_OP_LOOKUP}, op_var(1), O(MUL)));
  }
  return f;
}

START_TEST(test_format_round_trip) {
  qn_format f = shape_format(_i), g;
  cJSON *j = reparsed(qn__format_to_json(&f));
  ck_ok(qn__format_from_json(j, &g));
  ck_assert(!memcmp(&f, &g, sizeof f));
  cJSON_Delete(j);
}
END_TEST

/* A short table ends in NaN: an index beyond it shows. */
START_TEST(test_short_table) {
  qn_format f;
  cJSON *j = parsed("{\"name\":\"t\",\"bits\":2,\"codes\":\"u8\",\"float\":\"none\",\"planes\":[],"
                    "\"tables\":[[1,-0.5,0]],\"decode\":[\"q\",{\"lookup\":0}]}");
  ck_ok(qn__format_from_json(j, &f));
  ck_assert(f.table[0][1] == -0.5f && f.table[0][2] == 0 && isnan(f.table[0][3]) && isnan(f.table[0][255]));
  char *text = text_of(qn__format_to_json(&f));
  ck_assert_ptr_nonnull(strstr(text, "\"tables\":[[1,-0.5,0]]"));
  cJSON_free(text);
  cJSON_Delete(j);
}
END_TEST

START_TEST(test_layout_round_trip) {
  qn_format f = make_format(4, 32, true);
  qn_layout l = plain_layout(&f), m, again;
  cJSON *j = qn__layout_to_json(&l, &f);
  ck_ok(qn__layout_from_json(j, &f, &m));
  ck_assert_uint_eq(strlen(m.hash), 32);
  memcpy(l.hash, m.hash, sizeof l.hash);
  ck_assert(!memcmp(&l, &m, sizeof l));
  cJSON *name = cJSON_DetachItemFromObject(j, "name"); /* the order of the members is no part of a layout */
  cJSON_AddItemToObject(j, "name", name);
  ck_ok(qn__layout_from_json(j, &f, &again));
  ck_assert_str_eq(again.hash, m.hash);
  cJSON_ReplaceItemInObject(j, "pad_code", cJSON_CreateNumber(3)); /* its values are */
  ck_ok(qn__layout_from_json(j, &f, &again));
  ck_assert_str_ne(again.hash, m.hash);
  cJSON_Delete(j);
}
END_TEST

static qn_recipe full_recipe(void) {
  qn_recipe r = {.n_steps = 2, .deterministic = 1, .pdl = 1};
  for (uint32_t i = 0; i < r.n_steps; i++) {
    qn_step *step = &r.step[i];
    snprintf(step->entry, sizeof step->entry, "entry_%u", i);
    for (uint8_t a = 0; a < QN_ARG_COUNT; a++) step->arg[step->n_args++] = (uint8_t)((a + i) % QN_ARG_COUNT);
    step->arg[step->n_args++] = QN_FIRST_MAP, step->n_maps = 1;
    step->map[0] = (qn_tensor_map){.operand = QN_ARG_X, .type = QN_T_F16, .swizzle = 64, .rank = 2, .box = {32, 8 + i}};
    step->map[0].dim[0] = IN(r, V(K)), step->map[0].dim[1] = IN(r, V(M));
    for (int k = 0; k < 3; k++) step->grid[k] = IN(r, V(N), C(64 + k), O(CEILDIV), V(SMS), O(MIN));
    for (int k = 0; k < 3; k++) step->block[k] = IN(r, C(128 >> k));
    for (int k = 0; k < 3; k++) step->cluster[k] = IN(r, C(1));
    step->shared = IN(r, V(K), C(2), O(MOD), C(1024), C(2048), O(SELECT));
    if (!i) step->gathers = IN(r, V(M), V(K), O(MUL));
  }
  r.scratch = IN(r, V(M), V(N), O(MUL), C(4), O(MUL));
  return r;
}

START_TEST(test_recipe_round_trip) {
  qn_recipe r = full_recipe(), s;
  cJSON *j = reparsed(qn__recipe_to_json(&r));
  ck_ok(qn__recipe_from_json(j, &s));
  ck_assert(!memcmp(&r, &s, sizeof r));
  cJSON_Delete(j);
}
END_TEST

static size_t allocations;
static void *scarce(size_t bytes) { return allocations && allocations-- ? malloc(bytes) : NULL; }

/* What three descriptors are as JSON if only so many allocations succeed; NULL: not whole. */
static char *text_within(size_t most) {
  qn_format f = shape_format(3);
  qn_layout l = plain_layout(&f);
  qn_recipe r = full_recipe();
  allocations = most;
  cJSON *all = cJSON_CreateArray(), *last = cJSON_CreateObject();
  qn__json_append(all, qn__format_to_json(&f));
  qn__json_append(all, qn__layout_to_json(&l, &f));
  qn__json_add(last, "recipe", qn__recipe_to_json(&r));
  qn__json_append(all, last);
  char *text = cJSON_PrintUnformatted(all);
  ck_assert(!text || qn__json_whole(all));
  cJSON_Delete(all);
  return text;
}

/* A member that was missing for want of memory would be read as its default. */
START_TEST(test_out_of_memory) {
  cJSON_InitHooks(&(cJSON_Hooks){scarce, free});
  char *whole = text_within(SIZE_MAX), *text = NULL;
  ck_assert_ptr_nonnull(whole);
  size_t n = 0;
  while (!(text = text_within(n))) n++;
  ck_assert_str_eq(text, whole);
  ck_assert_msg(n > 500, "all of it with %zu allocations", n);
  free(text);
  free(whole);
}
END_TEST

/* What a recipe leaves out is 1, and what a layout leaves out of its codes is the format's. */
START_TEST(test_defaults) {
  qn_recipe r;
  cJSON *j = parsed("{\"steps\":[{\"entry\":\"e\",\"args\":[\"x\"],\"grid\":[[\"N\"]]}]}");
  ck_ok(qn__recipe_from_json(j, &r));
  const qn_step *s = &r.step[0];
  ck_assert(s->grid[0].n == 1 && r.pool.op[s->grid[0].at].code == QN_OP_VAR);
  const qn_expr *one[] = {&s->grid[1], &s->grid[2], &s->block[0], &s->block[2], &s->cluster[0], &s->cluster[2]};
  for (size_t i = 0; i < QN_COUNT(one); i++) ck_assert_uint_eq(one[i]->n, 0);
  ck_assert(s->shared.n == 0 && r.scratch.n == 0 && !r.deterministic && !r.batch_invariant && !r.pdl);
  cJSON_Delete(j);
  qn_format f = make_format(4, 32, false);
  qn_layout l;
  j = parsed(
      "{\"name\":\"l\",\"tile\":[1,32],\"pad_code\":8,\"sections\":["
      "{\"outer\":[[\"n\",0,1],[\"k\",0,32]],\"fields\":[{\"plane\":\"codes\",\"bits\":4,\"digits\":[[\"k\",32,1]]},"
      "{\"plane\":\"scale\",\"type\":\"f32\",\"bits\":32,\"digits\":[]}]}]}");
  ck_ok(qn__layout_from_json(j, &f, &l));
  ck_assert(l.section[0].field[0].type == QN_T_U8 && l.section[0].field[0].lo == 0);
  cJSON_Delete(j);
}
END_TEST

/* ---- What the generator writes ----------------------------------------------------------------------------------- */

static int hash(lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  char hex[33];
  qn__hash_hex(text, n, hex);
  lua_pushstring(L, hex);
  return 1;
}

static const char generate[] =
    "package.path = SOURCE .. '/?.lua;' .. SOURCE .. '/?/init.lua'\n"
    "local function read(path)\n"
    "  local f = io.open(SOURCE .. '/' .. path) if not f then return nil end\n"
    "  local text = f:read 'a' f:close() return text\n"
    "end\n"
    "local function list(folder)\n"
    "  local out, p = {}, io.popen('cd ' .. SOURCE .. '/' .. folder .. ' 2>/dev/null && ls')\n"
    "  for name in p:lines() do if name:match '%.lua$' then out[#out + 1] = name end end\n"
    "  p:close() return out\n"
    "end\n"
    "local gen = require 'gen.init' { types = types, hash = hash, problem = problem, read = read, list = list }\n"
    "gen.load_formats()\n"
    "local isa, names = {}, 'avx avx2 avx512bf16 avx512bw avx512dq avx512f avx512vl avx512vnni f16c fma'\n"
    "for name in names:gmatch '%S+' do isa[name] = true end\n"
    "local devices = {\n"
    "  { target = 'host', arch = names, isa = isa, threads = 2, l1 = 32768, l2 = 1048576, l3 = 33554432 },\n"
    "  { target = 'cuda', arch = 'sm_90a', sm = 90, smem = 232448, sms = 132, regs = 65536 } }\n"
    "local formats = { 'int4.g128', 'int4.g64.z', 'int4.g32', 'int8.row', 'int8.g128.zf', 'nf4.g64', 'f16', 'bf16', "
    "'f32' }\n"
    "local out = {}\n"
    "for _, device in ipairs(devices) do for _, f in ipairs(formats) do\n"
    "  local problem = gen.kernel.problem(f .. ':4096x4096', device.target)\n"
    "  local format = gen.json(gen.format.descriptor(problem.format))\n"
    "  for _, v in ipairs((gen.kernel.variants(problem, device, { space = 'reduced' }))) do\n"
    "    out[#out + 1] = { v.name, format, gen.json(v.layout), gen.json(v.recipe) }\n"
    "  end\n"
    "end end\n"
    "return out\n";

/* Each variant's descriptors are read, hold for shapes that are no multiple of anything, and come back the same. */
static void check_variant(const char *name, const char *const json[3]) {
  static const int64_t sizes[][2] = {{4096, 4096}, {1, 1}, {4095, 4097}, {130, 200}};
  qn_format f;
  qn_layout l;
  qn_recipe r;
  cJSON *j[3];
  for (int i = 0; i < 3; i++) j[i] = parsed(json[i]);
  ck_assert_msg(qn__format_from_json(j[0], &f) == QN_OK, "%s: %s", name, qn__errmsg());
  ck_assert_msg(qn__layout_from_json(j[1], &f, &l) == QN_OK, "%s: %s", name, qn__errmsg());
  ck_assert_msg(qn__recipe_from_json(j[2], &r) == QN_OK, "%s: %s", name, qn__errmsg());
  for (size_t i = 0; i < QN_COUNT(sizes); i++)
    ck_assert_msg(qn__layout_check(&l, &f, sizes[i][0], sizes[i][1]) == QN_OK, "%s, %lldx%lld: %s", name,
                  (long long)sizes[i][0], (long long)sizes[i][1], qn__errmsg());
  cJSON *back[] = {qn__format_to_json(&f), qn__layout_to_json(&l, &f)};
  for (int i = 0; i < 2; i++) {
    ck_assert_msg(cJSON_Compare(i ? j[1] : j[0], back[i], true), "%s: %s", name, json[i]);
    cJSON_Delete(back[i]);
  }
  for (int i = 0; i < 3; i++) cJSON_Delete(j[i]);
}

START_TEST(test_generator) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_pushstring(L, QN_TESTS "/.."), lua_setglobal(L, "SOURCE");
  lua_register(L, "hash", hash);
  lua_register(L, "problem", qn__lua_problem);
  lua_pushstring(L, QN_TYPES_TEXT), lua_setglobal(L, "types");
  ck_assert_msg(!luaL_dostring(L, generate), "%s", lua_tostring(L, -1));
  lua_Integer n = luaL_len(L, -1);
  ck_assert_msg(n >= 20, "%d variants", (int)n);
  for (lua_Integer i = 1; i <= n; i++) {
    const char *field[4];
    lua_geti(L, -1, i);
    for (int k = 0; k < 4; k++) lua_geti(L, -1 - k, k + 1), field[k] = lua_tostring(L, -1);
    check_variant(field[0], field + 1);
    lua_pop(L, 5);
  }
  lua_close(L);
}
END_TEST

/* ---- What is refused --------------------------------------------------------------------------------------------- */

enum { FORMAT, LAYOUT, RECIPE };
#define PLANE "{\"name\":\"scale\",\"type\":\"f16\",\"max\":0,\"rows\":1,\"cols\":32}"

static const char good_format[] =
    "{\"name\":\"f\",\"bits\":4,\"codes\":\"u8\",\"float\":\"none\",\"planes\":[" PLANE "],\"tables\":[[1,2]],"
    "\"decode\":[\"q\",8,\"-\",\"scale\",\"*\"]}";
static const char good_layout[] =
    "{\"name\":\"l\",\"tile\":[4,32],\"pad_code\":8,\"sections\":[{\"outer\":[[\"n\",0,4],[\"k\",0,32]],\"fields\":["
    "{\"plane\":\"codes\",\"type\":\"u8\",\"lo\":0,\"bits\":4,\"digits\":[[\"n\",4,1],[\"k\",32,1]]},"
    "{\"plane\":\"scale\",\"type\":\"f32\",\"lo\":0,\"bits\":32,\"digits\":[[\"n\",4,1]]}]}]}";
static const char good_recipe[] =
    "{\"steps\":[{\"entry\":\"e\",\"args\":[\"x\",\"w\"],\"grid\":[[\"N\",64,\"ceildiv\"]],\"block\":[[128]],"
    "\"cluster\":[],\"shared\":[0]}],\"scratch\":[0],\"deterministic\":true}";
static const char *const good[] = {good_format, good_layout, good_recipe};

/* `from` becomes `to` in the good text; the error says `part`. */
static const struct {
  int what;
  const char *from, *to, *part;
} faults[] = {
    {FORMAT, "\"name\":\"f\",", "", "name is missing"},
    {FORMAT, "\"name\":\"f\"", "\"name\":7", "name is missing or no text"},
    {FORMAT, "\"f\"", "\"0123456789012345678901234567890123456789012345678901234567890123456789\"", "too long"},
    {FORMAT, "\"bits\":4", "\"bits\":-4", "bits is no whole number"},
    {FORMAT, "\"bits\":4", "\"bits\":4.5", "bits is no whole number"},
    {FORMAT, "\"bits\":4", "\"bits\":1e300", "bits is no whole number"},
    {FORMAT, "\"bits\":4", "\"bits\":9", "9 bits"},
    {FORMAT, "\"bits\":4", "\"bits\":0", "0 bits"},
    {FORMAT, "\"codes\":\"u8\"", "\"codes\":\"u7\"", "codes is no element type"},
    {FORMAT, "\"codes\":\"u8\"", "\"codes\":\"f16\"", "codes of type"},
    {FORMAT, "\"float\":\"none\"", "\"float\":null", "float is no element type"},
    {FORMAT, "\"planes\":[", "\"planes\":{},\"x\":[", "planes is missing or no array"},
    {FORMAT, PLANE, PLANE "," PLANE, "two planes 'scale'"},
    {FORMAT, PLANE, PLANE "," PLANE "," PLANE "," PLANE "," PLANE "," PLANE "," PLANE "," PLANE, "too many"},
    {FORMAT, "[[1,2]]", "[1]", "tables need arrays"},
    {FORMAT, "[[1,2]]", "[[1,\"2\"]]", "tables need at most 256 numbers"},
    {FORMAT, "[[1,2]]", "[[1,1e39]]", "all of them floats"},
    {FORMAT, "[[1,2]]", "[[1],[2],[3]]", "tables has too many"},
    {FORMAT, "\"-\"", "\"plus\"", "plus is no number, variable or operator"},
    {FORMAT, "\"scale\",\"*\"", "\"zero\",\"*\"", "zero is no number, variable or operator"},
    {FORMAT, "\"scale\",\"*\"", "\"*\"", "wants 2 operands"},
    {FORMAT, "\"scale\",\"*\"", "\"scale\"", "leaves 2 values"},
    {FORMAT, "[\"q\",8,\"-\",\"scale\",\"*\"]", "[]", "no decode rule"},
    {FORMAT, "[\"q\",8,", "[\"q\",{\"lookup\":1},8,", "table 1"},
    {LAYOUT, "\"tile\":[4,32]", "\"tile\":[4]", "tile is no whole number"},
    {LAYOUT, "\"tile\":[4,32]", "\"tile\":[0,32]", "tile 0"},
    {LAYOUT, "\"pad_code\":8", "\"pad_code\":16", "pad code 16"},
    {LAYOUT, "[\"k\",0,32]", "[\"m\",0,32]", "needs digits"},
    {LAYOUT, "[\"k\",0,32]", "[\"k\",0]", "needs digits"},
    {LAYOUT, "[\"k\",0,32]", "[\"k\",0,32,1]", "needs digits"},
    {LAYOUT, "[\"k\",0,32]", "[\"k\",0,64]", "along k"},
    {LAYOUT, "\"plane\":\"scale\"", "\"plane\":\"zero\"", "zero is no plane"},
    {LAYOUT, "\"plane\":\"scale\",\"type\":\"f32\"", "\"plane\":\"scale\"", "type is no element type"},
    {LAYOUT, "\"type\":\"f32\"", "\"type\":\"f16\"", "in 32 bits"},
    {LAYOUT, "\"bits\":4", "\"bits\":3", "does not store"},
    {LAYOUT, "\"sections\":[", "\"sections\":[],\"x\":[", "0 sections"},
    {RECIPE, "\"steps\":[", "\"steps\":[],\"x\":[", "0 steps"},
    {RECIPE, "\"entry\":\"e\"", "\"entry\":\"\"", "no entry"},
    {RECIPE, "\"w\"]", "\"v\"]", "v is no kernel argument"},
    {RECIPE, "\"w\"]", "3]", "is no kernel argument"},
    {RECIPE, "\"N\"", "\"O\"", "O is no number, variable or operator"},
    {RECIPE, "64", "64.5", "64.5 is not an integer"},
    {RECIPE, "[[128]]", "[[128],[1],[1],[1]]", "block has too many"},
    {RECIPE, "[[128]]", "[128]", "an expression is no array"},
    {RECIPE, "\"scratch\":[0]", "\"scratch\":[\"q\"]", "q is no number"},
};

static qn_status read_descriptor(int what, const cJSON *j) {
  static union {
    qn_format format;
    qn_layout layout;
    qn_recipe recipe;
  } out;
  qn_format f = make_format(4, 32, false);
  return what == FORMAT   ? qn__format_from_json(j, &out.format)
         : what == LAYOUT ? qn__layout_from_json(j, &f, &out.layout)
                          : qn__recipe_from_json(j, &out.recipe);
}

START_TEST(test_faults) {
  const char *text = good[faults[_i].what], *at = strstr(text, faults[_i].from);
  char changed[4096];
  ck_assert_ptr_nonnull(at);
  snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, faults[_i].to, at + strlen(faults[_i].from));
  cJSON *j = parsed(text), *k = parsed(changed);
  ck_ok(read_descriptor(faults[_i].what, j));
  ck_fails(QN_E_FORMAT, faults[_i].part, read_descriptor(faults[_i].what, k));
  cJSON_Delete(j);
  cJSON_Delete(k);
}
END_TEST

/* Any byte wrong: a status, never a crash. */
START_TEST(test_noise) {
  rng r = {11};
  char text[2048];
  for (int i = 0; i < 60000; i++) {
    int what = i % 3;
    size_t n = strlen(good[what]);
    memcpy(text, good[what], n + 1);
    for (uint32_t k = 1 + below(&r, 2); k--;) text[below(&r, (uint32_t)n)] = "0189-[]{},:\"qnkMN*e.x"[below(&r, 21)];
    cJSON *j = cJSON_Parse(text);
    qn_status s = read_descriptor(what, j);
    ck_assert_msg(s == QN_OK || s == QN_E_FORMAT || s == QN_E_LIMIT, "%s: %s", text, qn_status_name(s));
    cJSON_Delete(j);
  }
}
END_TEST

/* A measured number is the same before and after it was kept; one in four would lose its last bit. */
START_TEST(test_numbers) {
  rng r = {12};
  for (int i = 0; i < 1000; i++) {
    const double x = (1 + below(&r, 1u << 30)) * 1e-9 / (3 + below(&r, 1000));
    cJSON *j = cJSON_CreateObject();
    qn__json_add_number(j, "x", x);
    const double added = qn__json_number(j, "x", 0);
    char *text = cJSON_PrintUnformatted(j);
    cJSON *again = cJSON_Parse(text);
    ck_assert_msg(qn__json_number(again, "x", 0) == added && fabs(added / x - 1) < 5e-16, "%.17g is kept as %s", x,
                  text);
    cJSON_Delete(again);
    cJSON_free(text);
    cJSON_Delete(j);
  }
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_format_round_trip, QN_COUNT(shapes)),
      CASE(test_short_table, 1),
      CASE(test_layout_round_trip, 1),
      CASE(test_recipe_round_trip, 1),
      CASE(test_out_of_memory, 1),
      CASE(test_defaults, 1),
      CASE(test_generator, 1),
      CASE(test_faults, QN_COUNT(faults)),
      CASE(test_noise, 1),
      CASE(test_numbers, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
