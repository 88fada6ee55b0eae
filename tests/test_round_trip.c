/* test_round_trip.c - planes -> layout -> planes: every format of the list in every layout that a kernel family has for
 * it, over random shapes. */
#include "format_list.h"
#include "generator.h"
#include "runtime_fixture.h"
#include "unpack.h"

static const char *const formats[] = {
#define X(spelling, f32, bf16, i8) spelling,
    FORMAT_LIST(X)
#undef X
};

/* All layouts of a format as a JSON list: for each kind of machine, activation and width of a panel. The families write
 * no source here, which takes longer than all else. */
static const char layouts_text[] =
    "for _, family in ipairs(gen.kernel.families()) do family.outline = {} end\n"
    "local host = { target = 'host', arch = '', isa = setmetatable({}, { __index = function() return true end }) }\n"
    "local cuda = { target = 'cuda', arch = 'sm_90a', sm = 90, smem = 232448, sms = 132, regs = 65536, isa = {} }\n"
    "local acts = { host = { 'f32', 'bf16', 'i8' }, cuda = { 'f16', 'bf16' } }\n"
    "local few = { host = { MR = 4, PF = 0, UNROLL = 1, ISA = 'avx512' },\n"
    "  cuda = { WARPS = 4, MB = 1, BM = 32, BN = 64, BK = 64, WN = 4, WK = 2, STAGES = 4, SPLIT = 1 } }\n"
    "function layouts(name)\n"
    "  local out, seen = {}, {}\n"
    "  for _, device in ipairs { host, cuda } do\n"
    "    for _, act in ipairs(acts[device.target]) do\n"
    "      local problem = gen.kernel.problem(name .. ':512x512:' .. act, device.target)\n"
    "      for _, v in ipairs((gen.kernel.variants(problem, device, { fixed = few[device.target] }))) do\n"
    "        local text = gen.json(v.layout)\n"
    "        if not seen[text] then out[#out + 1] = text end\n"
    "        seen[text] = true\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "  return '[' .. table.concat(out, ',') .. ']'\n"
    "end\n";

static void round_trip(const qn_format *f, const qn_layout *l, rng *r) {
  int64_t n = 1 + below(r, 150), k = 1 + below(r, 600), bytes;
  weight w = random_weight(f, n, k, r), back = empty_weight(f, n, k);
  ck_ok(qn__layout_check(l, f, n, k));
  ck_ok(qn__layout_bytes(l, n, k, &bytes));
  uint8_t *packed = malloc((size_t)bytes);
  ck_ok(qn__layout_pack(NULL, l, f, &w.planes, packed));
  unpack(l, f, packed, &back.planes);
  for (uint32_t i = 0; i <= f->n_planes; i++) {
    const qn_plane *p = &w.planes.plane[i];
    size_t size = (size_t)(p->rows * p->cols) * (size_t)qn_type_bits(p->type) / 8;
    ck_assert_msg(!memcmp(w.data[i], back.data[i], size), "plane '%s' of %s [%lld, %lld] in layout %s", p->name,
                  f->name, (long long)n, (long long)k, l->name);
  }
  free(packed);
  free_weight(&w);
  free_weight(&back);
}

START_TEST(test_planes_come_back) {
  const char *why = "";
  qn_format f;
  rng r = {77 + (uint64_t)_i};
  why = generator_format(formats[_i], &f);
  ck_assert_msg(!why, "%s: %s", formats[_i], why);
  lua_State *L = generator(&why);
  ck_assert(!luaL_dostring(L, layouts_text));
  const char *text = generator_call("layouts", formats[_i], &why);
  ck_assert_msg(text != NULL, "%s: %s", formats[_i], why);
  cJSON *list = cJSON_Parse(text);
  const cJSON *j;
  ck_assert_int_ge(cJSON_GetArraySize(list), 2);
  cJSON_ArrayForEach(j, list) {
    qn_layout l;
    ck_ok(qn__layout_from_json(j, &f, &l));
    for (int i = 0; i < 3; i++) round_trip(&f, &l, &r);
  }
  cJSON_Delete(list);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_planes_come_back, QN_COUNT(formats)),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
