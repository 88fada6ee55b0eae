/* test_cli.c - the tool as its users meet it: help, every verb, misuse, and a world that is bad.
 *
 * A row is a command, its exit status, and what its output and its errors must match (extended regular expressions;
 * NULL: must be empty). `quernel` is the tool of this build, $T the tests' folder. QN_CASE=N runs row N alone. */
#include "cli_fixture.h"
#include "pack.h"
#include "pack_read.h"
#include "runtime_fixture.h"
#include <pty.h>
#include <regex.h>
#include <signal.h>
#include <stdbool.h>

typedef struct row {
  const char *command;
  int status;
  const char *out, *err;
} row;

#define ANY ".*"
#define TUNE                                                                                                           \
  "quernel tune --problem int4.g32:64x128 --act f32 --m 1,3 --family host.gemm --fix ISA=c --fix NR=16 --fix MR=2 "    \
  "--no-dense --quiet --store $STORE "
#define TWO TUNE "--problem int4.g32:32x128 "
#define MMA "cuda.mma/int4.g128/f16-f16/"
#define MODEL "$T/models/tiny-llama-gptq4"
#define TINY "$T/models/tiny-llama"
/* Nothing is timed: x.qpack holds a plain kernel, its store is the default one. */
#define VERIFY                                                                                                         \
  "quernel verify --problem f32:32x64:f32-f32 --family host.gemm --fix ISA=c --fix NR=16 --fix MR=2 --quiet "
/* A model of one tensor: codes; with a hostile name */
#define CODES                                                                                                          \
  "{ printf '\\120\\0\\0\\0\\0\\0\\0\\0'; printf '%-80s' '{\"x.weight\":{\"dtype\":\"U8\",\"shape\":[2,4],"            \
  "\"data_offsets\":[0,8]}}'; printf 12345678; } >x.safetensors && "
#define NAMED(dtype)                                                                                                   \
  "{ printf '\\120\\0\\0\\0\\0\\0\\0\\0'; printf '%-80s' '{\"\\u001b[2J\\u009bx.weight\":{\"dtype\":\"" dtype          \
  "\",\"shape\":[2,2],\"data_offsets\":[0,8]}}'; printf 12345678; } >x.safetensors && "
#define PACKED VERIFY "-o x.qpack >verified && "

static const row rows[] = {
    /* Help and misuse */
    {"quernel --help", 0, "What there is.*devices.*Measuring.*tune.*run", NULL},
    {"quernel", 2, NULL, "usage: quernel VERB"},
    {"quernel --version", 0, "^quernel [0-9]+\\.[0-9]+\\.[0-9]+", NULL},
    {"quernel nonsense", 2, NULL, "^quernel: verb \"nonsense\" is not known; known: devices, formats,[^\n]*\n$"},
    {"quernel tuen", 2, NULL, "did you mean \"tune\"\\?"},
    {"for v in devices formats kernels source tune bench verify explain store pack merge report inspect dequantize "
     "quantize "
     "convert tradeoff eval tokens "
     "run; "
     "do quernel $v --help >$v.txt || exit 9; grep -q '^usage: quernel '$v $v.txt || exit 8; done; "
     "quernel --help >all.txt; ! grep '.\\{81\\}' *.txt",
     0, NULL, NULL},
    {"quernel tradeoff $T/models/tiny-llama --text x.txt --only int4.g64:gptq; r=$?; ls tradeoff-tiny-llama; "
     "exit $r",
     2, NULL, "^quernel: tradeoff: int4.g64:gptq: gptq looks at activations: it needs a text, --calibrate FILE\nls: "},
    {"quernel tradeoff $T/models/tiny-llama --text x.txt --target-ms 25", 2, NULL,
     "^quernel: tradeoff: --target-ms goes with --calibrate only\n$"},
    {"for o in '--bits 1' '--memory 1M'; do quernel tradeoff $T/models/tiny-llama --text $T/models/text/valid.txt "
     "--calibrate $T/models/text/calibration.txt --ctx 64 $o -o refused; r=$?; ls refused && exit 9; done; exit $r",
     1, NULL,
     "^quernel: --bits 1: the least is 2.56 bits a weight\nls: [^\n]*\nquernel: --memory 1 MB: the least is 1.43 MB, "
     "of which 0.14 MB are not quantized, and 0.26 MB keys and values\nls: "},
    {"quernel tune --help", 0, "Problem.*--m LIST .*default: 1,4,16,64,256.*Layers.*Device.*Search.*Output", NULL},
    {"quernel tune", 2, NULL, "^quernel: tune: a MODEL or --problem P is needed\n$"},
    {"quernel tune --bogus", 2, NULL, "^quernel: tune: option \"--bogus\" is not known; known: --problem[^\n]*\n$"},
    {"quernel tune --problme int4:8x8", 2, NULL, "did you mean \"--problem\"\\?"},
    {"for v in --m '--m --quiet' '--m=' '--store=' \"-o ''\"; do eval quernel tune --problem int4:8x8 $v; "
     "test $? = 2 || exit 9; done",
     0, NULL, "^(quernel: tune: [-a-z]+ needs a value: [A-Za-z.]+\n){5}$"},
    {"quernel tune --m 1,x --problem int4:8x8", 2, NULL, "\"x\" is no number of tokens"},
    {"quernel tune --budget -1 --problem int4:8x8", 2, NULL, "--budget: \"-1\""},
    {"for v in inf nan 1e999 1h; do quernel tune --budget $v --problem int4:8x8; test $? = 2 || exit 9; done", 0, NULL,
     "^(quernel: tune: --budget: [^\n]* is no number from 0 on\n){4}$"},
    {"quernel bench x.qpack --reps 99999999999", 2, NULL, "\"99999999999\" is no number from 1 to 10000\n$"},
    {"quernel tune --act bf17 --problem int4:8x8:bf16", 2, NULL, "activations are f16, bf16"},
    {"quernel tune --effort hard --problem int4:8x8", 2, NULL, "known: quick, normal, full"},
    {"quernel kernels --json=1", 2, NULL, "--json takes no value"},
    {"quernel kernels --family nobody", 2, NULL, "\"nobody\" is not known; known: host.gemm, host.gemv"},
    {"quernel kernels --arch sm_99", 2, NULL, "unknown architecture \"sm_99\"; known: sm_75"},
    {"quernel kernels --arch cpu", 2, NULL, "^quernel: kernels: 'cpu' is not an architecture such as sm_90a\n$"},
    {"quernel kernels --fix NR", 2, NULL, "no NAME=VALUE"},
    {"quernel kernels --fix XY=3", 2, NULL, "no kernel family has a parameter \"XY\""},
    {"quernel kernels --fix NR=16,17", 2, NULL, "no kernel family has NR=17"},
    {"quernel kernels --arch sm_90a --fix WN=0", 2, NULL, "no kernel family has WN=0"},
    {"quernel source nobody", 2, NULL, "\"nobody\" is no name of a variant"},
    {"quernel pack a b", 2, NULL, "unexpected argument \"b\""},
    {"quernel dequantize x", 2, NULL, "too few arguments"},
    {"quernel verify", 2, NULL, "a PACK or --problem P is needed"},
    {"quernel store dance", 2, NULL,
     "action \"dance\" is not known; known: diff, export, forget, gc, import, list, show, verify\n$"},
    /* An option that would do nothing is refused */
    {"for v in 'verify x.qpack -o y' 'verify x.qpack --space full' 'verify --problem f32:3x4 --function a=b:c' "
     "'kernels --registers' 'kernels --list --compile-all' 'kernels --arch sm_80 --device host' 'store show --age 3' "
     "'store list --age 3'; do quernel $v; test $? = 2 || exit 9; done",
     0, NULL, "^(quernel: [a-z]+: -[-a-z]+ (goes with [-a-z]+ only|does not go with [-a-z]+)\n){8}$"},

    /* What there is */
    {"quernel devices", 0, "host .*threads.*compiler for host: ", NULL},
    {"quernel devices --json", 0, "^\\{\"compilers\":.*\"devices\":\\[", NULL},
    {"quernel formats", 0, "int4 .*gemm gemv  decode expand mma wgmma .*nf4 .*spelling:", NULL},
    {"quernel formats int4.g64.z", 0, "plane     zero u8.*decode    \\(q - zero\\) \\* scale\n.*host.gemv", NULL},
    {"for v in int4..g64 .int4 int4.g64.z.z int4.z.zf int4.g64.g128 f32.g64 int4.g64.; do quernel formats $v; "
     "test $? = 2 || exit 9; done",
     0, NULL,
     "int4..g64: format int4 does not know \"\"; known: .*\\.int4: unknown format; known: .*\"z\" and \"z\" both "
     "choose "
     "the type of plane zero\n.*\"z\" and \"zf\" both.*does not know \"g128\"; known: .*does not know \"g64\"; known: "
     "none\n.*does not know \"\"; known: "},
    {"quernel formats q4_k", 0, "decode    q \\* \\(d \\* scale\\) - dmin \\* min\n", NULL},
    {"quernel formats nope", 2, NULL, "^quernel: formats: nope: unknown format; known: "},
    {"quernel kernels --problem int4.g128:256x256", 0, "host.gemm.*candidates.*rule .* removes", NULL},
    {"quernel kernels --json", 0, "\"families\":\\[.*\"variants\":\\[", NULL},
    {"quernel kernels --list --space quick | head -1 >v; quernel source $(cat v)", 0, "int4", NULL},
    {"quernel source host.gemv/int4.g128/f32~i8-f32/c-nr16-split-mr1-pf0", 0, "activations f32~i8, output f32", NULL},
    {"quernel kernels --list --space quick | head -1 >v; quernel source --lines $(cat v)", 0,
     "#line [0-9]+ \"templates/", NULL},
    {"quernel kernels --compile-all --family host.gemv --fix ISA=c --problem f32:64x64:f32-f32 --quiet", 0,
     "arch +variants +registers.*\nhost ", NULL},
    {"quernel kernels --compile-all --family cuda.mma --problem f32:64x64 --arch sm_80", 1, NULL,
     "^quernel: sm_80: no variant is left to compile\n$"},
    {"quernel explain cuda.gemv/int4.g128/f16-f16/w4-u1-mb1 --device emu:sm_75 --shape 64x512 --m 100", 0,
     "compiled   [0-9]+ bytes in [0-9.]+ s\nbound      M = 8: .*counted    M = 8, ", NULL}, /* PTX has no registers */
    {"echo '[0, 1, 0]' >e; quernel explain cuda.decode/int4.g128/f16-f16.experts/bm8-wn4-wk2-u4-x1024-sum-k1 "
     "--arch sm_90a --shape 3x64x1024 --m 6 --experts e",
     0, "counted    M = 6, .*  weights  0.33 bytes read for each", NULL}, /* of three experts one */
    {"quernel explain " MMA "bm32-bn64-bk64-wn8-s4-sum-k1 --shape 3x64x64", 2, NULL, "is a kernel for one weight\n$"},
    {"quernel explain int4.g128:256x256", 0, "candidates survive.*nothing of it was timed", NULL},
    {"quernel explain " MMA "bm32-bn64-bk64-wn8-s4-sum-k1", 1, NULL,
     "^quernel: [^\n]* on sm_90a: rule warp rejects it: a warp takes 16, 32 or 64 features[^\n]*\n$"},
    {"quernel explain " MMA "bm32-bn64-bk128-wn9-s4-sum-k1", 2, NULL, "WN has no value \"wn9\"; known: wn4, wn8\n$"},
    {"quernel explain " MMA "bm32-bn64-bk128-wn4-s4-sum-k1-x2", 2, NULL, "no parameter for \"x2\"\n$"},
    {"quernel explain " MMA "bm32-bn64-bk128-wn4-s4-sum-k1 --device host", 2, NULL,
     ": a kernel for cuda, and host is none\n$"},
    {"quernel explain host.gemm/int4.g128/bf16-f32/c-nr16-record-mr2-u1 --device emu:sm_80", 2, NULL,
     ": a kernel for host, and emu:sm_80 is none\n$"},
    {"quernel explain " MMA "bm32-bn64-bk128-wn4-s4-sum-k1 --m 1,2", 2, NULL, "one number of tokens"},
    {"quernel explain int4.g128:256x256 --store s; test ! -e s && exit $?", 0, NULL,
     "^quernel: store: s: No such file or directory\n$"},
    {"quernel source --ptx " MMA "bm32-bn64-bk128-wn4-s4-sum-k1", 0, "\\.target sm_90a", NULL},
    {"quernel source --ptx host.gemm/int4.g128/bf16-f32/c-nr16-record-mr2-u1", 2, NULL,
     "--ptx: .* is no CUDA variant\n$"},
    {"printf 'Hi \\303\\251' >x.txt; quernel tokens " TINY " x.txt", 0,
     "^byte-level BPE, 256 tokens, of .*tokenizer.json; no BOS\n.*x.txt +5 +5 +1\\.00 +0\n$", NULL},
    {"printf 'Hi \\303\\251' >x.txt; quernel tokens " TINY " x.txt x.txt --ids", 0,
     "^72 105 32 195 169\n72 105 32 195 169\n$", NULL},
    {"printf 'Hi' >x.txt; quernel tokens " TINY " x.txt --npy x.npy >y && quernel tokens " MODEL " x.npy --json", 0,
     "\"ids\":\\[72,105\\]", NULL},
    {"printf 'Hi\\n\\n\\033' >x.txt; quernel tokens " TINY " x.txt --npy x.npy >y && quernel tokens " TINY
     " x.npy --decode | cmp - x.txt",
     0, NULL, NULL},
    {"printf 'a text that is in both of them' >x.txt; quernel tokens " TINY " x.txt --before x.txt", 0,
     "x.txt: 100.0% of its runs of 16 tokens are in x.txt, too; the first begins at token 0, there at 0\n$", NULL},
    {"sed 's/\"nf4\"/\"mine\"/' $T/../templates/formats/nf4.lua >m.lua; quernel formats mine.g32 --template m.lua", 0,
     "^mine.g32: .*\\(m.lua\\)", NULL},
    {"quernel formats --template nowhere.lua", 1, NULL, "^quernel: nowhere.lua: No such file"},

    /* Bad input */
    {"quernel tune --problem int4:0x4", 2, NULL, "N = 0 is outside 1 \\.\\. 2147483647\n$"},
    {"quernel tune --problem int4:4x2147483648", 2, NULL, "K = 2147483648 is outside"},
    {"quernel tune --problem zzz:4x4", 2, NULL, "zzz: unknown format; known: "},
    {TUNE "--problem int4.g32:64x128+bias --problem int4:8x32:f32 --act f32,q9", 2, NULL, "q9"},
    {"quernel tune --problem int4.g32:64x128:f32 --problem int4.g32:64x128+bias --act f32,bf16 --m 1 --no-dense "
     "--quiet "
     "--family host.gemm --fix ISA=c --fix NR=16 --fix MR=2 --fix UNROLL=1 --store $STORE",
     0, "tuning 3 problems.*f32-f32 .*f32-f32\\+bias .*bf16-f32\\+bias ", NULL},
    {"quernel tune --problem int4", 2, NULL, "the form is FORMAT:\\[Ex\\]NxK"},
    {"echo 1 2 >e; for v in 3x8x8 8x8; do quernel tune --problem int4:$v --experts e; test $? = 1 || exit 9; done", 0,
     "^(tuning 1 problem on host: [^\n]*\n)*$",
     "^quernel: e: 2 numbers; int4.g128:3x8x8:[^ ]* has 3 experts\nquernel: e: there is no stack of experts, "
     "[^\n]*\n$"},
    {"echo 1 x >e; quernel tune --problem int4:2x8x8 --experts e", 1, NULL, "^quernel: e: expert 1 has x; wanted is "},
    {"quernel tune nowhere", 1, NULL, "^quernel: .*nowhere.*No such file[^\n]*\n$"},
    {"mkdir m && head -c 100000 " MODEL "/model.safetensors >m/model.safetensors && cp " MODEL "/config.json m; "
     "quernel tune m",
     1, NULL, "^quernel: .*model.safetensors[^\n]*\n$"},
    {"mkdir m && cp " MODEL "/*.json m && quernel run $T/lua/damage.lua " MODEL
     "/model.safetensors m/model.safetensors; "
     "quernel tune m",
     1, NULL, "^quernel: model.layers.0.mlp.down_proj.weight: [^\n]*scale[^\n]*\n$"},
    {"for n in 1000 $(($(wc -c <$T/models/tiny-llama-q4_0.gguf) - 100)); do head -c $n $T/models/tiny-llama-q4_0.gguf "
     ">m.gguf; quernel tune m.gguf; test $? = 1 || exit 9; done",
     0, NULL, "^quernel: m.gguf: the file ends [^\n]*\nquernel: m.gguf: [^\n]*\n$"},
    {"printf 'Hi' >x.txt; quernel tokens " MODEL " x.txt", 1, NULL,
     "^quernel: x.txt: [^\n]*no tokenizer.json beside it \\(--tokenizer names one\\); give token ids instead, a .npy "
     "or .jsonl file\n$"},
    {"printf 'Hi \\351' >x.txt; quernel tokens " TINY " x.txt", 1, NULL,
     "^quernel: x.txt: byte 3 is no UTF-8: 0xe9\n$"},
    {": >x.txt; quernel tokens " TINY " x.txt", 1, NULL, "^quernel: x.txt: an empty text\n$"},
    {"printf '\\n{\"input_ids\": [256]}' >x.jsonl; quernel tokens " TINY " x.jsonl", 1, NULL,
     "^quernel: x.jsonl:2: 256 among the ids; they are whole numbers from 0 to 255\n$"},
    {"quernel eval " TINY " --text $T/models/text/valid.txt --bos yes --quiet", 1, NULL,
     "^quernel: the model names no token that begins a text \\(BOS\\)\n$"},
    {"quernel tokens " TINY " a b --npy x.npy", 2, NULL, "--npy goes with one FILE, not 2\n$"},
    {"quernel tokens " TINY " x --decode --ids", 2, NULL, "does not go with"},
    {PACKED "quernel inspect x.qpack", 1, NULL,
     "^quernel: x.qpack is a pack, not a model; quernel pack shows [^\n]*\n$"},
    {"quernel inspect nowhere", 1, NULL, "^quernel: .*nowhere[^\n]*\n$"},
    {"quernel dequantize " MODEL " nope -o x.npy; s=$?; test ! -e x.npy && exit $s", 1, NULL, "no weight \"nope\""},
    {"quernel pack /etc/passwd", 1, NULL, "/etc/passwd.*pack"},
    {"quernel report", 2, NULL, "PACK"},
    {"quernel report /etc/passwd; test $? = 1 && ! test -e report.html", 0, NULL, "/etc/passwd.*pack"},
    {TUNE "-o x.qpack >tuned && quernel report x.qpack --csv --json", 2, NULL, "--csv and --json exclude each other"},
    {TUNE "-o x.qpack >tuned && quernel report x.qpack -o nowhere/x.html", 1, NULL, "nowhere/x.html"},
    {TUNE "-o x.qpack >tuned && quernel report x.qpack --model nowhere", 1, NULL, "nowhere"},
    {TUNE "-o x.qpack >tuned && quernel bench x.qpack --against x.qpack --m 1 --reps 3 --quiet", 0,
     "against us.*x +host.gemm c-", NULL},
    {TUNE "-o x.qpack >tuned && quernel bench x.qpack --against nowhere", 1, NULL, "nowhere"},
    {TUNE "-o x.qpack >tuned && mv x.qpack y.qpack && " PACKED "quernel bench y.qpack --against x.qpack", 1, NULL,
     "^quernel: x.qpack has none of the problems that are to be timed\n$"},
    /* A page of a problem with two times, of two packs; a verified kernel has none. The same as CSV. */
    {TUNE "-o x.qpack >tuned && mkdir d && cp x.qpack d && quernel report x.qpack d/x.qpack --model " MODEL
          " && grep -c '<circle' report.html && grep -o '>d/x.qpack<' report.html | uniq && rm x.qpack && " PACKED
          "quernel report x.qpack -o y.html && grep -o 'No plan has a time' y.html && ! grep '<svg' y.html",
     0, "^report: report.html\n4\n>d/x.qpack<\nreport: y.html\nNo plan has a time\n$", NULL},
    /* The store knows the next best kernel, of the other layout; another store does not. */
    {TUNE "-o x.qpack >tuned && quernel report x.qpack --csv --store $STORE | tr -d '\\r'; mkdir other; "
          "quernel report x.qpack --csv --store other | tr -d '\\r' | tail -1",
     0,
     "^pack,device,problem,m,kernel,seconds,[^\n]*,next_kernel,next_seconds\n"
     "x.qpack,\"host, [^\n\"]*\",int4.g32:64x128:f32-f32,1,host.gemm/[^\n]*,host.gemm/[^\n,]*,[0-9.e-]+\n"
     "x.qpack,[^\n]*,3,host.gemm/[^\n]*,host.gemm/[^\n,]*,[0-9.e-]+\n"
     "x.qpack,[^\n]*,3,host.gemm/[^\n]*,,\n$",
     NULL},
    {"quernel verify nowhere.qpack", 1, NULL, "nowhere.qpack"},
    {PACKED
     "for at in 3 20 70 200 600 900 2000; do cp x.qpack y && printf '\\245' | dd of=y bs=1 seek=$at conv=notrunc "
     "status=none; for v in pack verify bench; do quernel $v y; test $? = 1 || exit 9; done; done",
     0, NULL, "^(quernel: 'y': pack: [^\n]*\n){21}$"},
    {PACKED "head -c 900 x.qpack >y; quernel verify y", 1, NULL, "^quernel: 'y': pack: 900 bytes of [0-9]+ [^\n]*\n$"},
    {PACKED "printf '\\011' | dd of=x.qpack bs=1 seek=8 conv=notrunc status=none; quernel bench x.qpack", 1, NULL,
     "^quernel: 'x.qpack': pack: version 9, this library reads version [0-9]+: take a newer library\n$"},
    {"quernel formats >/dev/full", 1, NULL, "standard output: No space left"},
    {"ulimit -f 8; for o in x x.safetensors; do quernel convert " MODEL " -o $o; test $? = 1 || exit 9; done; test -z "
     "\"$(ls -A | grep x)\"",
     0, NULL, "^quernel: [^\n]*/model.safetensors: File too large\nquernel: x.safetensors: File too large\n$"},
    {"cp $T/models/text/valid.txt a; ln -s a b; quernel eval " TINY " --text a --text b --windows 1 --ctx 16", 1, NULL,
     "^quernel: b: the same text as a; name each once\n$"},
    {"echo \"assert(os.setlocale(os.getenv 'L')); q = require 'quernel'; print(q.json { a_b = 1.5, aa = 2 })\" >x.lua; "
     "localedef -i de_DE -f UTF-8 ./de_DE.UTF-8 2>x && LOCPATH=. L=de_DE.UTF-8 quernel run x.lua || L=C quernel run "
     "x.lua",
     0, "^[{]\"a_b\":1.5,\"aa\":2}\n$", NULL},
    {"ulimit -f 300; quernel tradeoff " TINY " --text $T/models/text/valid.txt --windows 1 --ctx 16 --only int4.g64.z "
     "--store s --quiet -o o; s=$?; test ! -e o/tradeoff.html && exit $s",
     1, NULL,
     "^quernel: o/candidates/[^\n]*/model.safetensors: File too large; what was measured is kept in o: the same "
     "command "
     "goes on from there\n$"},
    {"echo x >f; quernel tradeoff " TINY " --text $T/models/text/valid.txt --windows 1 --ctx 16 --only int4.g64.z "
     "--store f/s --quiet -o o; s=$?; test ! -e o && exit $s",
     1, NULL, "^quernel: store: cannot make f/s: Not a directory; set QUERNEL_CACHE to another folder\n$"},
    {"ulimit -f 8; quernel dequantize " MODEL " model.layers.2.mlp.down_proj.weight -o x.npy; s=$?; "
     "test -z \"$(ls -A | grep npy)\" && exit $s",
     1, NULL, "x.npy[^\n]*File too large"},
    {PACKED "ulimit -f 1; " VERIFY "-o y.qpack; s=$?; test -z \"$(ls -A | grep y.qpack)\" && exit $s", 1, NULL,
     "^quernel: y.qpack: cannot be written: File too large\n$"},
    {PACKED "rm -r .cache/quernel/*/evidence && (ulimit -f 0; " VERIFY " 2>&1) | cat >&2; "
            "quernel store verify | grep -q '^0 files are damaged' && " VERIFY,
     0, "2 of 2 variants are right", "(^|\n)quernel: what was seen from here on is not kept: [^\n]*: File too large\n"},
    {"(ulimit -f 4; " VERIFY "); s=$?; " VERIFY "&& exit $s", 1, "2 of 2 variants are right",
     "^(host.gemm/[^\n]*File too large\n)+$"},
    {PACKED "mkfifo y && " VERIFY "-o y; s=$?; test -p y && exit $s", 1, NULL,
     "^quernel: y: cannot be written: not a file\n$"},
    {"export TMPDIR=/nowhere/x; " TUNE "--store s >out; " VERIFY "--store s >out", 1, NULL,
     "set aside for this run: no folder for temporary files in /nowhere/x: [^\n]*TMPDIR.*set aside[^\n]*/nowhere/x"},
    {VERIFY "--store /proc/nowhere", 1, NULL, "^quernel: store: cannot make /proc/nowhere: [^\n]*\n$"},
    {VERIFY "--store /etc/passwd", 1, NULL,
     "^quernel: store: cannot make /etc/passwd/[^\n]*Not a directory; set [^\n]*\n$"},
    {VERIFY "--store s && cd s/* && rm -r journal && echo x >journal && cd ../.. && " VERIFY "--store s", 1, "2 of 2",
     "^quernel: store: s/[^\n]*/journal/[^\n]*: Not a directory; set QUERNEL_CACHE to [^\n]*\n$"},
    {"mkdir open && chmod 777 open; "
     "for v in nowhere open; do QUERNEL_CACHE_SYSTEM=$v " TUNE "; test $? = 1 || exit 9; done",
     0, ANY,
     "^quernel: store: QUERNEL_CACHE_SYSTEM: nowhere: No such file[^\n]*\nquernel: store: every user can write open, "
     "[^\n]*chmod o-w it[^\n]*\n$"},
    {"echo x >.cache; " VERIFY, 1, NULL, "^quernel: store: cannot make [^\n]*\\.cache[^\n]*\n$"},
    {"PATH=/nowhere " QN_BUILD "/" VERIFY, 1, NULL,
     "^quernel: no C compiler: none of cc, gcc, clang is on PATH[^\n]*\n$"},
    {"QUERNEL_NVRTC=/nowhere.so quernel kernels --compile-all --arch sm_80", 1, NULL,
     "^quernel: QUERNEL_NVRTC: /nowhere.so: [^\n]*\n$"},
    {"QUERNEL_NVRTC=/nowhere.so QUERNEL_CC=/nowhere/cc quernel devices", 0, "host: none: .*CUDA: none: .*/nowhere.so",
     NULL},
    {"QUERNEL_CC=/nowhere/cc " TUNE, 1, ANY, "^quernel: [^\n]*/nowhere/cc[^\n]*\n$"},
    {"QUERNEL_CC=/bin/true " TUNE, 1, ANY, "^quernel: /bin/true is neither gcc nor clang\n$"},
    {"QUERNEL_WORKER=/nowhere/worker " TUNE, 1, ANY, "/nowhere/worker"},
    {TUNE "--device cuda:99", 1, NULL, "^quernel: [^\n]*\n$"},
    {"quernel store list --store nowhere", 1, NULL, "^quernel: store: nowhere: No such file or directory\n$"},
    {"mkdir s; quernel store diff s nowhere", 1, NULL, "^quernel: store: nowhere: No such file or directory\n$"},
    {"quernel store forget int4 --store $STORE; quernel store forget '' --store $STORE", 1, NULL,
     "^quernel: the store knows nothing of \"int4\"[^\n]*store show[^\n]*\n[^\n]*nothing of \"\""},
    {TUNE "--store s >one && quernel store show --store s && quernel store forget int4.g32:64x128 --store s && " TUNE
          "--store s",
     0,
     "host: [^\n]*, gcc [^\n]*\n[^\n]*compiled [1-9],[^\n]*\n  runs here use it\n  int4.g32:64x128:f32-f32 at M = 1, "
     "3\n"
     "forgotten: [0-9]+ entries.*compiled 0 [^\n]*known [1-9][^\n]*timed [1-9]",
     NULL},
    {TUNE
     "--store s >one && for h in $(ls s | cut -c1-5) '' zz; do quernel store show $h --store s | grep -c 'at M'; done; "
     "quernel store show zz --store s",
     1, "^1\n1\n0\n$", "^(quernel: 0 of 1 machine in the store begin with \"zz\"[^\n]*store list[^\n]*\n){2}$"},
    {"quernel store list x; quernel store import; quernel store show a b", 2, NULL,
     "^[^\n]*list takes 0 arguments\n[^\n]*import takes 1 argument\n[^\n]*show takes at most 1 argument\n$"},
    {"for o in --fused --partial '--include a'; do quernel tune --problem f32:8x8 $o; done", 2, NULL,
     "^quernel: tune: --fused goes with a MODEL\n[^\n]*--partial goes with a MODEL\n[^\n]*--include goes with a "
     "MODEL\n$"},
    {"for n in 1 2; do quernel eval " TINY
     " --text $T/models/text/valid.txt --windows $n --ctx 16 --quiet --store s >x "
     "|| exit 9; done; L='quernel store list --store s'; $L; set -- s/eval/*; mv $1 s/eval/00000000-x.log; $L; quernel "
     "store gc --store s; touch -d '29 days ago' s/eval/*; quernel store gc --store s; touch -d '31 days ago' "
     "s/eval/*; "
     "quernel store gc --store s; $L --json; quernel store forget eval --store s; $L; "
     "quernel store forget eval --store s",
     1,
     "^s\n\nevaluations: 2, [^\n]* B\ns\n\nevaluations: 1, [^\n]*\n +of other builds [^\n]*: 1; gc removes "
     "those that were not written for 30 days\n[^\n]* removed 0\n[^\n]* removed 0\n[^\n]* removed "
     "1\n\\{\"evaluations\":\\{[^\n]*\"evaluations\":1,[^\n]*\"older\":0\\},\"machines\":..\\}\nforgotten: 1 "
     "[^\n]*\ns\n"
     "nothing was measured yet\n$",
     "^quernel: the store knows nothing of \"eval\""},
    {"T=\"quernel tradeoff " TINY
     " --text $T/models/text/valid.txt --windows 2 --ctx 16 --only int8.row:rtn:i8 --budget 1 "
     "--quiet --store $STORE -o out\"; $T >x; rm out/tradeoff.json; mkdir out/tradeoff.json; $T",
     1, NULL, "^quernel: out/tradeoff.json: cannot be written: not a file\n$"},
    /* What a trade-off cannot use is refused before anything is written, with the thing, the value and the limit */
    {"cp -r " TINY " a; cp -r " TINY " r; cp -r " TINY
     " u; sed -i 's/\"model_type\": *\"llama\"/\"model_type\": \"mamba9\"/' a/*; "
     "sed -i 's/^{/{\"rope_scaling\": {\"rope_type\": \"spiral\"},/' r/config.json; sed -i 's/\"type\": "
     "*\"BPE\"/\"type\": "
     "\"Unigram\"/' u/tokenizer.json; printf 'too short' >s; : >e; printf 'abc\\351' >b; echo '{\"input_ids\": [256]}' "
     ">i.jsonl; echo '{\"query\":\"a\",\"choices\":[\"b\"],\"gold\":0}' >q.jsonl; V=$T/models/text/valid.txt; for v in "
     "\"a --text $V\" "
     "\"r --text $V\" \"u --text $V\" \"" TINY " --text s\" \"" TINY " --text $V --text e\" \"" TINY
     " --text b\" \"" TINY " --text i.jsonl\" \"" TINY " --text $V --task q.jsonl\" \"" TINY
     " --text $V --ctx 300\"; do quernel tradeoff $v -o out "
     "--quiet; test $? = 1 || exit 9; test -e out && exit 8; done; ulimit -f 8; quernel tradeoff " TINY " --text $V -o "
     "out --quiet; find out -type f",
     0, NULL,
     "^quernel: a: architecture \"mamba9\" is not known; those that can be evaluated: llama, [^\n]*\nquernel: "
     "r: config.json: rope_type: \"spiral\" is not known; default, [^\n]*\nquernel: [^\n]*a tokenizer of kind Unigram "
     "is not "
     "read, only BPE; give token ids[^\n]*\nquernel: s: its 9 ids are fewer than two windows of 256; [^\n]*\nquernel: "
     "e: an "
     "empty text\nquernel: b: byte 3 is no UTF-8: 0xe9\nquernel: i.jsonl:1: 256 among the ids; [^\n]*\nquernel: "
     "q.jsonl:1: it "
     "has fewer than two choices\nquernel: ctx 300: [^\n]* was made for 256 tokens\nquernel: out/reference: [0-9]+ MB "
     "are needed "
     "for the reference's hidden states: File too large\n$"},
    /* An output that cannot be written is found before any work; a pack with more is not lost */
    {TUNE "-o nowhere/x.qpack", 1, NULL, "^quernel: nowhere/x.qpack: cannot be written: No such file[^\n]*\n$"},
    {VERIFY "-o nowhere/x.qpack; test ! -e .cache && exit $?", 0, NULL, "^quernel: nowhere/x.qpack: [^\n]*\n$"},
    {"mkdir d.safetensors; for v in \"tune " MODEL "\" \"quantize --format int4.g32 " MODEL "\" \"convert " MODEL
     "\" \"dequantize " MODEL
     " w\"; do for o in nowhere/x.safetensors d.safetensors; do quernel $v -o $o; test $? = 1 || "
     "exit 9; done; done",
     0, NULL,
     "^(quernel: nowhere/x.safetensors: cannot be written: [^\n]*\nquernel: d.safetensors: cannot be written: not a "
     "file\n){4}$"},
    {TUNE "-o x.qpack && cp x.qpack y && " TUNE "-o x.qpack >again && " VERIFY "-o x.qpack; cmp x.qpack y && " TUNE
          "--m 3 -o x.qpack; cmp x.qpack y && " TUNE "--m 3 -o x.qpack --overwrite; ! cmp -s x.qpack y",
     0, ANY,
     "^(quernel: x.qpack holds what this run would not: int4.g32:64x128:f32-f32 at M = "
     "1[^\n]*--overwrite[^\n]*\n){2}$"},
    {"echo hello >x.qpack; " TUNE "-o x.qpack; " TUNE "-o x.qpack --overwrite; grep hello x.qpack", 0, "^hello\n$",
     "^(quernel: 'x.qpack': pack: [^\n]*; remove it, or name another file with -o\n){2}$"},
    /* What is read is not written over, by whatever name */
    {"cp -r $T/models/tiny-llama m; cp m/model.safetensors kept; ln m/model.safetensors o.safetensors; for v in "
     "'quantize "
     "--format int4 m' 'convert m' 'dequantize m lm_head.weight'; do for o in m/model.safetensors o.safetensors; do "
     "quernel $v "
     "-o $o; test $? = 1 || exit 9; done; done; cmp m/model.safetensors kept",
     0, NULL, "^(quernel: [^\n]* is a file of the model that is read; name another\n){6}$"},
    {"mkdir -p t/templates/formats && echo 'return format { name = = 3 }' >t/templates/formats/bad.lua; "
     "QUERNEL_TEMPLATES=t quernel formats",
     1, NULL, "^quernel: t/templates/formats/bad.lua:1: [^\n]*near '='\n$"},
    {"mkdir -p t/templates/formats && echo 'return format { name = \"bad\", bits = 4 }' >t/templates/formats/bad.lua; "
     "QUERNEL_TEMPLATES=t quernel formats",
     1, NULL, "^quernel: t/templates/formats/bad.lua:1: format bad needs the field \"decode\"\n$"},
    {"mkdir -p t/templates/kernels/host && echo 'return kernel { name = = 3 }' >t/templates/kernels/host/bad.lua; "
     "export QUERNEL_TEMPLATES=t; quernel --version && quernel kernels --device host --family host.gemv",
     1, "^quernel [0-9.]*\n$", "^quernel: t/templates/kernels/host/bad.lua:1: [^\n]*near '='\n$"},
    {"echo 'return (\"a\"):rep(5000):find((\".-\"):rep(40)..\"b\")' >bomb.lua; quernel formats --template bomb.lua", 1,
     NULL, "^quernel: bomb.lua: one call of a library function took over 5 s; stopped\n$"},
    {"QUERNEL_CAHCE=x quernel devices", 2, NULL,
     "^quernel: environment variable \"QUERNEL_CAHCE\" is not known; did you mean \"QUERNEL_CACHE\"\\? known: "},
    {"quernel verify --problem int4.g128:64x64 --family host.gemm,host.gem", 2, NULL,
     "kernel family \"host.gem\" is not known; did you mean \"host.gemm\"\\? known: host.gemm, host.gemv\n$"},
    {"quernel tune --problem int4.g128:64x64 --m 1,,2", 2, NULL,
     "^quernel: tune: --m: an element of the list \"1,,2\" is "},
    {"quernel tune --problem int4.g128:64x64 --threads 1.5", 2, NULL, "--threads: \"1.5\" is no whole number\n$"},
    {"QUERNEL_TEMPLATES=nowhere quernel devices", 1, NULL,
     "^quernel: QUERNEL_TEMPLATES: there is no folder nowhere/templates\n$"},
    {"mkdir -p t/templates t/lua t/gen && echo 'error \"outside\"' | tee t/lua/main.lua >t/gen/format.lua; "
     "QUERNEL_TEMPLATES=t quernel formats",
     0, "int4", NULL},

    /* Scripts */
    {"echo 'print(require \"quernel\".version, ...)' >s.lua; quernel run s.lua a b", 0, "^[0-9.]+\ta\tb\n$", NULL},
    {"echo 'return 7' >s.lua; quernel run s.lua", 7, NULL, NULL},
    {"echo 'error \"on purpose\"' >s.lua; quernel run s.lua", 1, NULL, "s.lua:1: on purpose"},
    {"echo 'x = = 1' >s.lua; quernel run s.lua", 1, NULL, "s.lua:1: "},
    {"quernel run", 2, NULL, "a script is needed"},
    {"quernel run nowhere.lua", 1, NULL, "nowhere.lua"},
    {"quernel run $T/../templates/examples/nf3.lua 48x512", 0, "fastest\t1\thost\\.[^\n]* us\n", NULL},

    /* Checkpoints */
    {"quernel inspect " MODEL, 0,
     "gptq +int4.g128 +768 +256 +4\\.[0-9]+ .*39 weights.*\narchitecture llama: can be evaluated\n$", NULL},
    {"quernel inspect " MODEL " --json", 0, "\"dialect\":\"gptq\"", NULL},
    {"quernel dequantize " MODEL " model.layers.2.mlp.down_proj.weight -o x.npy && wc -c <x.npy", 0, "^786560\n$",
     NULL},
    {"quernel convert " MODEL " -o p.safetensors && quernel inspect p.safetensors", 0,
     "down_proj.weight +linear +planes +int4.g128 +256 +768 +4\\.12", NULL},
    {"quernel quantize $T/models/tiny-llama --format int4.g64.z --scales mse --skip lm_head.weight --quiet -o "
     "q.safetensors "
     "&& quernel inspect q.safetensors && quernel dequantize q.safetensors model.layers.2.mlp.down_proj.weight -o "
     "x.npy",
     0, "28 layers as int4.g64.z, 4.31 bits a weight: error 0.0.*lm_head.weight +head +plain.*planes +int4.g64.z",
     NULL},
    /* A folder leads on to every other verb; what cannot become one, or is there, is told before the work. */
    {"quernel quantize " TINY
     " --format int4.g64 --skip lm_head.weight --quiet -o q/ >x && ls q && quernel inspect q | "
     "tail -1 && quernel eval q --text $T/models/text/valid.txt --windows 1 --quiet && quernel convert q --to gptq "
     "--quiet -o g && quernel convert q -o p && cmp p/config.json q/config.json && cmp p/tokenizer.json "
     "q/tokenizer.json",
     0,
     "^config.json\nmodel.safetensors\ntokenizer.json\ntokenizer_config.json\narchitecture llama: can be "
     "evaluated\n.*\nvalid.txt +127 .*\n28 layers as gptq in g\n$",
     NULL},
    {"quernel quantize " TINY " --format int4.g64 --skip lm_head.weight --quiet -o q.safetensors >x; for c in 'eval "
     "q.safetensors --text x --quiet' 'convert q.safetensors -o q' 'convert q.safetensors --config " TINY
     " -o q' 'convert q.safetensors --config " TINY " -o q' 'inspect q' 'convert q --config " TINY
     " -o r.safetensors' 'convert q -o ./q/'; do eval quernel $c; echo "
     "$?; "
     "done | grep -v weight",
     0, "^1\n1\n0\n1\narchitecture llama: can be evaluated\n0\n2\n1\n$",
     "^quernel: q.safetensors: no config.json beside the weights, [^\n]* convert --config makes? [^\n]*\n"
     "quernel: ./config.json: not there, [^\n]*--config names [^\n]*\nquernel: q: not empty; --overwrite [^\n]*\n"
     "quernel: convert: --config goes with a folder; r.safetensors is a file of weights alone\nquernel: ./q/ is the "
     "folder of "
     "the "
     "model that is read; name another\n$"},
    {"G=$T/models/tiny-llama-q4_0.gguf; quernel convert $G -o r && quernel convert $G --overwrite -o r && ls r && "
     "quernel convert r --to gguf --quiet -o "
     "s.gguf "
     ">x && quernel convert $G -o w.safetensors && quernel convert w.safetensors --config $G -o w && cmp w/header.gguf "
     "r/header.gguf && for m in $G r s.gguf w; do quernel eval $m --text $T/models/text/valid.txt --windows 1 --ctx 64 "
     "--quiet | tail -1; done | uniq | wc -l; quernel convert r --to gptq --quiet -o t",
     1, "^header.gguf\nmodel.safetensors\n1\n$",
     "^quernel: r has the header of a GGUF, and gptq is served with a config.json: --config names a folder that has "
     "it\n$"},
    {"quernel quantize $T/models/tiny-llama --format q4_k --only '*.down_proj.*' --json -o q.safetensors", 0,
     "^\\{\"layers\":\\[\\{.*\"bpw\":4.5,.*\"total\":\\{.*\"layers\":4,.*\"rms\":0.0", NULL},
    {"quernel quantize $T/models/tiny-llama --format int4 --only nothing -o q.safetensors", 1, NULL,
     "no linear layer is chosen"},
    {"quernel quantize $T/models/tiny-llama --format int99 -o q.safetensors", 2, NULL, "unknown format"},
    {"quernel quantize $T/models/tiny-llama --format int4 --scales best -o q.safetensors", 2, NULL,
     "known: minmax, mse"},
    {"quernel quantize $T/models/tiny-llama --format int4 --method best -o q.safetensors", 2, NULL,
     "known: rtn, imatrix, awq, gptq, gptaq, awq\\+gptq, awq\\+gptaq"},
    {"quernel quantize --help >h; for o in method scales; do quernel quantize $T/models/tiny-llama --format int4 --$o "
     "best "
     "-o q 2>&1 | sed -n 's/.*known: //; s/, /\\n/gp'; done | while read -r w; do grep -qwF -e \"$w\" h && echo \"$w\" "
     "|| "
     "echo \"not in the help: $w\"; done",
     0, "^rtn\n([a-z+-]+\n)+full-mse\n$", "^$"},
    {"quernel quantize $T/models/tiny-llama --format int4 --method gptq -o q.safetensors", 2, NULL,
     "--method gptq needs --calibrate TEXT"},
    {"quernel quantize $T/models/tiny-llama --format int4.g64 --method gptaq --scales full --calibrate "
     "$T/models/text/valid.txt --ctx 64 --windows 0:9:4 --only '*layers.0*' --quiet -o q.safetensors && ls",
     0, "output +nearest.*7 layers as int4.g64, .*\nq.safetensors\n$", NULL},
    {"quernel quantize $T/models/tiny-llama --format int4.g64 --method awq --calibrate $T/models/text/valid.txt --ctx "
     "64 "
     "--windows 0:9:4 --only '*layers.0.self_attn.q_proj*' --quiet -o q.safetensors",
     0,
     "^layer [^\n]* output\n[^\n]*%\n1 layers as [^\n]*\n0 of 1 inputs are scaled\nnot scaled: what "
     "[^\n]*q_proj.weight "
     "reads: [^\n]*k_proj.weight reads it, too, and is not quantized\n$",
     "^$"},
    {"printf '{\"input_ids\":[7%s]}' \"$(printf ',7%.0s' $(seq 299))\" >ids.jsonl; for a in '' --allow-rtn; do quernel "
     "quantize $T/models/arch/mixtral --format int4.g16 --method gptq --scales outputs --calibrate ids.jsonl --ctx 64 "
     "$a "
     "--quiet -o q; done && ls",
     0, "layers as int4.g16, [^\n]*\nids.jsonl\nq\n$",
     "^quernel: [^\n]*experts[^\n]* the least; with --allow-rtn it is rounded to nearest\nquernel: [^\n]*experts[^\n]* "
     "is "
     "rounded to nearest: 0 of 256 tokens"},

    /* For other tools: a folder */
    {"quernel convert " MODEL " --to gptq --quiet -o out && ls out && quernel inspect out", 0,
     "^28 layers as gptq in out\nconfig.json\nmodel.safetensors\nquantize_config.json\n.*down_proj.weight +linear "
     "+gptq +int4.g128 +256 +768",
     "^quernel: [^\n]*tiny-llama-gptq4: no tokenizer.json or tokenizer.model: out has no tokenizer\n$"},
    {"quernel convert " MODEL " --to awq -o out; s=$?; test -z \"$(ls -A | grep out)\" && exit $s", 1, NULL,
     "^quernel: model.layers.0[^\n]*, int4.g128: awq: int4 with integer zero points is held, [^\n]*; it is held by "
     "gptq, gptq_v2, compressed-tensors\n$"},
    {"quernel convert " MODEL "-act --to compressed-tensors -o out", 1, NULL,
     "act-order is not held; it is held by gptq, gptq_v2\n$"},
    {"quernel quantize $T/models/tiny-llama --format int4.g100 --only '*.up_proj.*' --quiet -o q.safetensors >x && "
     "quernel convert q.safetensors --to gptq --config $T/models/tiny-llama -o out",
     1, NULL, "up_proj.weight, int4.g100: gptq: K = 256 is no multiple of 100; it is held by no target\n$"},
    {"quernel quantize $T/models/tiny-llama --format int4.g32 --only '*.up_proj.*' --quiet -o q.safetensors >x; for o "
     "in "
     "'' '--config nowhere' '--config $T/models/tiny-llama'; do eval quernel convert q.safetensors --to gptq --quiet "
     "$o -o out; done; test -f out/tokenizer.json && grep -o 'mlp..*down_proj[$]' out/config.json",
     0, "^4 layers as gptq in out\nmlp",
     "^quernel: ./config.json: not there, and a checkpoint needs it; --config names "
     "the folder of the original model, or a GGUF\nquernel: nowhere/config.json: not there, [^\n]*\n$"},
    {"C=\"quernel convert " MODEL
     " --to gptq --quiet -o out\"; mkdir out && $C >x 2>&1 && cp out/config.json kept && ! $C "
     "&& cmp out/config.json kept && echo >out/config.json && $C --overwrite >x 2>&1 && cmp out/config.json kept && "
     "mkdir "
     "out/mine && ! $C --overwrite && test -d out/mine && test -z \"$(ls -A | grep '^[.]out[.]')\"",
     0, NULL,
     "^quernel: out: not empty; --overwrite replaces it, -o names another\nquernel: out: not empty, and no "
     "checkpoint that could be replaced; name another\n$"},
    {"cp -r " MODEL " m; quernel convert m --to gptq --overwrite -o m/; s=$?; cmp m/model.safetensors " MODEL
     "/model.safetensors && exit $s",
     1, NULL, "^quernel: m/ is the folder of the model that is read; name another\n$"},
    {"ulimit -f 8; quernel convert " MODEL
     " --to gptq --quiet -o out; s=$?; test -z \"$(ls -A | grep out)\" && exit $s",
     1, NULL, "^quernel: [^\n]*model.safetensors: File too large\n$"},
    {"quernel quantize $T/models/tiny-llama --format q4_k --only '*.up_proj.*' --quiet -o q.safetensors >x; C='quernel "
     "convert q.safetensors --to gguf --quiet -o q.gguf'; cp $T/models/tiny-llama/config.json . && ! $C && $C --config "
     "$T/models/tiny-llama && ! $C --config $T/models/tiny-llama && quernel inspect q.gguf; quernel convert q.gguf "
     "--to "
     "gguf -o r.gguf",
     1, "39 tensors as gguf in q.gguf\n.*blk.0.ffn_up.weight +linear +gguf/Q4_K +q4_k",
     "^quernel: ./tokenizer.json: not there, and a GGUF holds it; --config [^\n]*\nquernel: q.gguf: there is a file; "
     "--overwrite replaces it, -o names another\nquernel: [^\n]*q.gguf is a GGUF already\n$"},
    {"{ printf '\\200\\0\\0\\0\\0\\0\\0\\0'; printf '%-128s' '{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],"
     "\"data_offsets\":[0,8]}}'; printf 12345678; } >model.safetensors && cp $T/models/tiny-llama/config.json . && "
     "quernel "
     "convert " MODEL " --to gptq --config . -o out",
     1, NULL, "^quernel: model.norm.weight: \\[256\\] in [^\n]*, \\[2\\] in .: that is another model, or [^\n]*\n$"},
    {"quernel convert " MODEL " --to onnx -o out", 2, NULL, "known: gptq, gptq_v2, awq, compressed-tensors, gguf"},
    {"quernel convert " MODEL " --overwrite -o out.safetensors", 2, NULL, "--overwrite goes with a folder"},
    {"quernel convert $T/models/tiny-llama --to gptq -o out", 1, NULL,
     "no quantized layer; quernel quantize makes them"},

    {"cp -r " TINY " m && sed -i 's/\"model_type\": *\"llama\",/\"model_type\": \"phi3\", \"sliding_window\": 16,/' "
     "m/config.json && quernel convert m --to gguf --quiet -o m.gguf",
     0, "^39 tensors as gguf in m.gguf\n$", "^quernel: llama.cpp computes phi3 without its window of 16 tokens\n$"},

    /* The commands that a trade-off ends with make what they say. */
    {"printf 'local q = require \"quernel\"\\nlocal _, l = q.import \"lua.tradeoff.elsewhere\" (q)(arg[1], arg[2], "
     "arg[1])\\n"
     "for _, x in ipairs(l) do print(x.command) end' >s.lua && for f in int4.g32:bf16 int4.g64.z:bf16 int8.row:i8 "
     "mxfp4:i8; do quernel quantize " TINY " --format ${f%:*} --quiet -o ${f%:*} >x && quernel run s.lua ${f%:*} "
     "${f#*:} >s.sh && test -s s.sh && sh -e s.sh || exit 9; done; rm x s.*; ls && grep -o 'lm_head\":true' "
     "*/config.json "
     "&& quernel inspect int4.g32.gguf && quernel eval int8.row-compressed-tensors --text $T/models/text/valid.txt "
     "--windows 1 --ctx 16 --quiet",
     0,
     "29 layers as gptq in int4.g32-gptq\n39 tensors as gguf in int4.g32.gguf\n29 layers as awq in int4.g64.z-awq\n29 "
     "layers as compressed-tensors in "
     "int8.row-compressed-tensors\n.*int4.g32-gptq/config.json:lm_head.*int4.g64.z-awq/.*"
     "+gguf/Q4_0 .*nats",
     ""},

    /* What was written lies elsewhere than its configuration, and is a tied model still. */
    {"{ printf '\\120\\0\\0\\0\\0\\0\\0\\0'; printf '%-80s' '{\"wte.weight\":{\"dtype\":\"BF16\",\"shape\":[2,2],"
     "\"data_offsets\":[0,8]}}'; printf 12345678; } >x.safetensors && echo '{\"tie_word_embeddings\":true}' "
     ">config.json "
     "&& mkdir d && quernel convert x.safetensors -o d/y.safetensors && quernel inspect d/y.safetensors",
     0, "wte.weight +embedding +plain.*\nlm_head.weight +head +plain +bf16 +2 +2", NULL},

    /* What was stored [in, out] is written [out, in], and read so under the same configuration. */
    {"{ printf '\\120\\0\\0\\0\\0\\0\\0\\0'; printf '%-80s' '{\"a.c_fc.weight\":{\"dtype\":\"F16\",\"shape\":[2,4],"
     "\"data_offsets\":[0,16]}}'; printf 1234567812345678; } >x.safetensors && echo '{\"model_type\":\"gpt2\"}' "
     ">config.json && quernel quantize x.safetensors --format f32 -o y.safetensors --quiet >z && quernel inspect "
     "y.safetensors && mkdir d && quernel convert x.safetensors -o d/z.safetensors && for f in x y d/z; do "
     "quernel dequantize $f.safetensors a.c_fc.weight -o $f.npy; done && cmp x.npy y.npy && cmp x.npy d/z.npy",
     0, "a.c_fc.weight +linear +plain +f32 +4 +2", NULL},

    /* A model of which a part is unknown, x.safetensors: codes without a scale */
    {CODES "quernel inspect x.safetensors", 0,
     "1 weights.*1 cannot be read and are left out\ncannot be read: x.weight: U8.*\ncannot be evaluated: no "
     "config.json",
     NULL},
    {CODES "for v in 'tune -o y' 'convert -o y.safetensors' 'quantize --format int4 -o y.safetensors'; do quernel $v "
           "x.safetensors && exit 9; "
           "test $? = 1 || exit 8; ls | grep -q '^y' && exit 7; done; exit 0",
     0, NULL,
     "^(quernel: x.safetensors: 1 of 1 weights must be left out; [^\n]*--partial\\)\nleft out: x.weight: "
     "U8[^\n]*\n){3}$"},
    {CODES "quernel convert --partial -o y.safetensors x.safetensors", 0, NULL,
     "^quernel: left out: x.weight: U8[^\n]*\nquernel: 1 weight left out: this is a part of the model\n$"},

    /* Names from files are shown without what a terminal obeys: ESC, and CSI in UTF-8. */
    {NAMED("BF16") "quernel inspect x.safetensors", 0, "\n\\?\\[2J\\?\\?x\\.weight +linear +plain +bf16", NULL},
    {NAMED("Q7") "quernel inspect x.safetensors", 1, NULL, "^quernel: x.safetensors: \\?\\[2J\\?\\?x.weight: unknown"},

    /* The main job, small: tune, and all that follows from a pack */
    {TUNE
     "-o x.qpack && quernel pack x.qpack --kernels && quernel verify x.qpack && quernel bench x.qpack --m 2 --reps 2 "
     "--quiet && quernel explain int4.g32:64x128:f32-f32 --store $STORE && quernel run "
     "$T/../templates/examples/compare.lua x.qpack 3 "
     "&& quernel store list --store $STORE && quernel store verify --store $STORE",
     0,
     "tuning 1 problem on .*winner.*host.gemm.*pack: x.qpack.*batch-invariant.*0 failed.*dense us.*M = 1: .*sgemm "
     "us.*0.0e\\+00.*0 files are "
     "damaged",
     NULL},
    /* Shards of the work, joined again: the pack of one machine. A part of a pack. */
    {TWO
     ">tuned && for i in 1 2 3; do " TWO
     "--shard $i/3 -o $i.qpack >log; sed -n '/^shard/p; /^  int4/p; /^nothing/p; s/.*; \\(timed [0-9]*\\) .*/\\1/p' "
     "log; done; "
     "ls *.qpack; quernel merge 2.qpack 1.qpack -o all.qpack && " TWO
     "-o whole.qpack >tuned && cmp all.qpack whole.qpack "
     "&& quernel pack all.qpack --device 1 -o x.qpack && cmp x.qpack all.qpack && quernel pack all.qpack --device host "
     "-o x.qpack && quernel merge x.qpack --json -o x.qpack",
     0,
     "^shard 1/3: 1 of 2 problems\n  int4.g32:64x128:f32-f32\ntimed 0\nshard 2/3: 1 of 2 problems\n  int4.g32:32x128:"
     "f32-f32\ntimed 0\nshard 3/3: 0 of 2 problems\nnothing is left for it, and no pack is written\n1.qpack\n2.qpack\n"
     "device  1: host, [^\n]*\n +a machine like this one\npack: all.qpack, 9 plans of 2 packs\npack: x.qpack, 9 "
     "plans\npack: x.qpack, 9 plans\n\\{[^\n]*\"left_out\":\\[\\]",
     NULL},
    {"for s in 0/2 3/2 1/0 1/x 1 1/99999; do " TUNE "--shard $s -o x.qpack; test $? = 2 || exit 9; done; ls", 0, "^$",
     "^(quernel: tune: --shard:? [^\n]*\n){6}$"},
    {TUNE "-o a.qpack >tuned && " TUNE "--m 3 -o b.qpack >tuned && quernel merge b.qpack a.qpack -o c.qpack && quernel "
          "merge b.qpack a.qpack -o a.qpack; quernel merge a.qpack; quernel merge a.qpack nowhere -o d.qpack; quernel "
          "pack a.qpack --device 2 -o d.qpack; quernel pack a.qpack --device 1; quernel pack a.qpack -o d.qpack; ls",
     0, "^device [^\n]*\n +a machine like this one\npack: c.qpack, [^\n]*\na.qpack\nb.qpack\nc.qpack\ntuned\n$",
     "^quernel: int4.g32:64x128:f32-f32 on [^\n]*: taken from b.qpack; what a.qpack has differs\nquernel: a.qpack "
     "holds "
     "what this run would not: [^\n]* at M = 1, [^\n]*\nquernel: merge: -o OUT.qpack is needed\nquernel: [^\n]*nowhere"
     "[^\n]*\nquernel: a.qpack has no device \"2\"; there are 1 \\([^\n]*\\)\nquernel: pack: --device goes with -o "
     "only\nquernel: pack: -o goes with --device only\n$"},
    /* What a pod of the example for Kubernetes runs: the first of nine, and the last, for which nothing is left. */
    {"sed -n '/- |/,/resources:/p' $T/../templates/examples/kubernetes/tune.yaml | sed \"1d; \\$d; "
     "s|/share/model|" MODEL
     "|; s|/share|share|g; s|--quiet|--quiet --m 1 --budget 1 --no-dense|\" >pod; for i in 0 8; do "
     "JOB_COMPLETION_INDEX=$i SHARDS=9 sh -eu pod | grep '^shard\\|^nothing'; done; ls share/parts",
     0, "^shard 1/9: 1 of 5 problems\nshard 9/9: 0 of 5 problems\nnothing is left [^\n]*\n1-of-9.qpack\n$", NULL},
    /* Packs that come with the project can be read, and say what they are to this machine. */
    {"for p in $T/../cache/packs/*.qpack; do quernel pack $p | grep -cE 'a machine like this one|kernels (run here, "
     "and|do "
     "not run)|no device of its kind'; done",
     0, "^1\n$", NULL},
    /* A store that came from elsewhere, and one that has grown old, say what is amiss. */
    {TUNE
     "--store s >tuned && L='quernel store list --store s' && S='quernel store show --store s' && $L | grep use && "
     "quernel store export t --store s && quernel store import t --store u && quernel store diff s u && e=$(ls s) && "
     "sed -i 's/gcc [0-9.]*/gcc 3.4/' s/$e/env.json && x=$(echo $e | tr 0-9 "
     "1-90) && mv s/$e s/$x && $L | "
     "grep use && mv s/$x s/$e && sed -i 's/\"driver\".*/\"driver\": \"1.2\"/' s/$e/env.json && $L | grep use && "
     "for m in mine else; do sed 's/\"host.gemm\"/\"host.mine\"/' $T/../templates/kernels/host/gemm.lua >$m.lua; done "
     "&& "
     "sed -i 's/out++ =/out++  =/' else.lua && quernel tune --problem int4.g32:64x128:f32-f32 --m 1 --family host.mine "
     "--fix ISA=c --fix NR=16 --fix MR=2 --fix UNROLL=1 --no-dense --quiet --template mine.lua --store s >tuned && $S "
     "| grep -c host.mine && $S --template mine.lua | grep host.mine; $S --template else.lua | grep host.mine",
     0,
     "^  runs here use it\ncopied [1-9][^\n]*\ncopied [1-9][^\n]*\n0 entries differ\n  no run here uses it: compiler "
     "gcc 3.4, here "
     "[^\n]*\n  runs here use it, but it was begun under kernel 1.2, and here is [^\n]*\n[12]\n(    "
     "host.mine/[^\n]*: its templates have changed\n)+$",
     NULL},
    /* Man pages and completions have every option that the help has. */
    {"quernel --manual share && for v in $(sed -n \"s/^    words='\\(.*\\) help .*/\\1/p\" "
     "share/bash-completion/completions/quernel); do quernel $v --help | sed -n 's/^  \\(--*[a-z-]*\\).*/\\1/p' | "
     "while "
     "read -r o; do for f in bash-completion/completions/quernel zsh/site-functions/_quernel; do grep -qe \"$o\" "
     "share/$f || echo \"$v $o: not in $f\"; done; grep -qF -- \"$(echo \"$o\" | sed 's/-/\\\\-/g')\" "
     "share/man/man1/quernel-$v.1 || echo \"$v $o: not in its page\"; done; done; ls share/man/man1 | wc -l; bash -c "
     "'. "
     "share/bash-completion/completions/quernel; COMP_WORDS=(quernel tune --sh) COMP_CWORD=2; _quernel; echo "
     "${COMPREPLY[@]}; COMP_WORDS=(quernel tu) COMP_CWORD=1; _quernel; echo ${COMPREPLY[@]}'",
     0, "^21\n--shard\ntune\n$", NULL},
    {"quernel --manual; quernel --manual /proc/x", 1, NULL,
     "^quernel: --manual needs a value: DIR\nquernel: [^\n]*/proc/x[^\n]*\n$"},
    {TUNE ">first && " TUNE, 0, "compiled 0 \\(known [1-9][0-9]*, failed 0\\); verified 0 .*timed 0 ", NULL},
    {TUNE "--json -o x.qpack", 0, "^\\{.*\"counts\":.*\"pack\":\"x.qpack\".*\"plans\":\\[", NULL},
    {"quernel verify --problem int4.g32:64x128:f32-f32 --space full --family host.gemv --fix ISA=c --fix NR=16 --quiet",
     0, "4 of 4 variants are right", NULL},
};

static void match(const char *what, const char *pattern, const char *text, const row *r, int i) {
  regex_t re;
  bool ok = !*text;
  if (pattern) {
    /* "." spans lines: texts are matched as one */
    ck_assert_int_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    ok = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
  }
  if (!ok)
    ck_abort_msg(
        "%s: its %s is\n%.3000s\nwhich is not %s\nagain: CK_RUN_CASE=rows QN_CASE=%d ctest --test-dir " QN_BUILD
        " -R '^cli$' --output-on-failure",
        r->command, what, text, pattern ? pattern : "empty", i);
}

START_TEST(command) {
  const row *r = &rows[_i];
  const char *only = getenv("QN_CASE");
  if (only && atoi(only) != _i) return;
  setenv("T", QN_TESTS, 1);
  int status = cli("%s", r->command);
  if (status != r->status)
    ck_abort_msg("%s: status %d, not %d\n%.2000s%.2000s\nagain: CK_RUN_CASE=rows QN_CASE=%d ctest --test-dir " QN_BUILD
                 " -R '^cli$' --output-on-failure",
                 r->command, status, r->status, cli_out, cli_err, _i);
  match("output", r->out, cli_out, r, _i);
  match("error output", r->err, cli_err, r, _i);
}
END_TEST

/* A kernel that the compiler refuses, on either target: the line of the template. */
static const struct {
  const char *edit, *options, *line;
} refusals[] = {{"", "--family host.broken --problem int4.g32:64x64:f32-f32", "host/broken.lua:20:"},
                {"s/host/cuda/g; s/  arch = .*//", "--family cuda.broken --problem int4.g32:64x64:f16-f16 --arch sm_80",
                 "cuda/broken.lua(20): error: "}};

START_TEST(broken_kernel) {
  int target = !strncmp(refusals[_i].line, "cuda", 4);
  setenv("T", QN_TESTS, 1);
  ck_assert_int_eq(cli("mkdir -p t/templates/kernels/host t/templates/kernels/cuda && "
                       "sed '%s' $T/lua/broken.lua >t/templates/kernels/%s/broken.lua && "
                       "QUERNEL_TEMPLATES=t quernel kernels --compile-all %s --quiet",
                       refusals[_i].edit, target ? "cuda" : "host", refusals[_i].options),
                   1);
  ck_assert_msg(strstr(cli_err, refusals[_i].line) && strstr(cli_err, "undeclared_here"), "%s", cli_err);
}
END_TEST

/* The same pack, but its machine and its kernels have an instruction set that no CPU has. */
static void make_foreign(const char *from, const char *to) {
  qn_pack *p;
  qn_pack_builder *b;
  qn_pack_device d;
  qn_kernel k;
  qn_plan plan;
  ck_ok(qn__pack_open(NULL, from, &p));
  ck_ok(qn__pack_builder_new(&b));
  qn__pack_device(p, 0, &d);
  ck_ok(qn__pack_add_device(b, d.target, "x86-64 avx10fancy", d.product, (int)d.threads));
  for (uint32_t i = 0; i < qn__pack_kernels(p); i++) {
    qn__pack_kernel(p, i, &k);
    snprintf(k.arch, sizeof k.arch, "avx10fancy");
    ck_ok(qn__pack_add_kernel(b, &k));
  }
  for (uint32_t i = 0; i < qn__pack_plans(p); i++) {
    qn__pack_plan(p, i, &plan);
    ck_ok(qn__pack_add_plan(b, &plan));
  }
  ck_ok(qn__pack_write(b, to));
  qn__pack_builder_free(b);
  qn__pack_close(p);
}

START_TEST(foreign_cpu) {
  ck_assert_int_eq(cli(PACKED "true"), 0);
  make_foreign(cli_path("x.qpack"), cli_path("y.qpack"));
  ck_assert_int_eq(cli("quernel pack y.qpack --kernels"), 0); /* to be looked at, it is good enough */
  ck_assert_msg(strstr(cli_out, "avx10fancy"), "%s", cli_out);
  ck_assert_int_eq(cli("for v in verify bench; do quernel $v y.qpack; test $? = 1 || exit 9; done"), 0);
  ck_assert_msg(!*cli_out && strstr(cli_err, " needs a CPU with avx10fancy; "), "%s%s", cli_out, cli_err);
}
END_TEST

/* The tool is ended while a kernel compiles: the compiler, what that has started and the folder are gone; one line says
 * what stays, unless nobody can. */
static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGKILL};

START_TEST(ended_by_a_signal) {
  int status = cli("mkdir t; printf '#!/bin/sh\\ncase \"$*\" in *-shared*) sleep 1000 & echo $PPID $! >p; mv p pids; "
                   "wait;; *) exec cc \"$@\";; esac\\n' >slow; chmod +x slow; "
                   "{ while [ ! -e pids ]; do sleep 0.05; done; read tool sleeper <pids; kill -%d $tool; } & "
                   "TMPDIR=t QUERNEL_CC=./slow quernel tune --problem f32:32x64:f32-f32 --m 1 --threads 1 --store s",
                   ends[_i]);
  ck_assert_int_eq(status, 128 + ends[_i]);
  bool silent = ends[_i] == SIGKILL;
  const char *kept = strstr(cli_err, "quernel: interrupted; what was measured is kept in s:");
  ck_assert_msg(silent == !kept, "%s", cli_err);
  ck_assert_msg(cli("n=100; read tool sleeper <pids; while [ $n -gt 0 ] && { [ \"$(ls -A t)\" ] || "
                    "tr '\\0' ' ' </proc/$sleeper/cmdline | grep -q sleep; }; do sleep 0.1; n=$((n - 1)); done "
                    "2>/dev/null; [ $n -gt 0 ] || { ls -AR t; tr '\\0' ' ' </proc/$sleeper/cmdline; }") == 0 &&
                    !*cli_out,
                "left over: %s", cli_out);
}
END_TEST

/* A kernel that ends the tool is learned of, as one that takes it down is. */
#define ENDING                                                                                                         \
  "quernel tune --problem f32:32x64:f32-f32 --m 1 --no-dense --fix NR=32 --fix MR=4 --fix PF=0 --fix UNROLL=4 "        \
  "--function f=./f.so:f --store s"

START_TEST(ended_by_a_kernel) {
  int status = 143;
  ck_assert_int_eq(cli("printf 'int kill(int, int), getppid(void); void f(void) { kill(getppid(), 15); for (;;); }' | "
                       "cc -w -shared -fPIC -x c - -o f.so"),
                   0);
  for (int run = 0; run < 8 && status == 143; run++) status = cli(ENDING);
  ck_assert_int_eq(status, 0);
  ck_assert_msg(strstr(cli_out, "rejected 1;"), "%s%s", cli_out, cli_err);
}
END_TEST

/* On a terminal of 60 columns no line of a table is longer, and a long cell takes several. */
START_TEST(narrow_terminal) {
  enum { COLUMNS = 60 };
  struct winsize w = {.ws_row = 24, .ws_col = COLUMNS};
  char text[4096] = "";
  size_t size = 0;
  int fd, longest = 0;
  ck_assert_int_eq(cli(PACKED "true"), 0);
  pid_t pid = forkpty(&fd, NULL, NULL, &w);
  ck_assert_msg(pid >= 0, "there is no terminal: is /dev/pts mounted?");
  if (!pid) {
    execl(QN_BUILD "/quernel", "quernel", "pack", cli_path("x.qpack"), (char *)NULL);
    _exit(127);
  }
  for (ssize_t n; (n = read(fd, text + size, sizeof text - 1 - size)) > 0;) size += (size_t)n;
  waitpid(pid, NULL, 0);
  close(fd);
  for (const char *p = text; *p; p += strspn(p, "\r\n")) {
    int length = (int)strcspn(p, "\r\n");
    longest = length > longest ? length : longest;
    p += length;
  }
  ck_assert_msg(strstr(text, "host.gemm/") && longest <= COLUMNS, "a line of %d columns:\n%s", longest, text);
}
END_TEST

/* The rows, then cases of their own: CK_RUN_CASE=rows QN_CASE=N, CK_RUN_CASE=foreign_cpu. */
static void add_tests(Suite *s, const char *name, const TTest *test, int loops) {
  TCase *c = tcase_create(name);
  tcase_add_unchecked_fixture(c, cli_store_enter, cli_store_leave);
  tcase_add_checked_fixture(c, cli_enter, cli_leave);
  tcase_set_timeout(c, 300);
  tcase_add_loop_test(c, test, 0, loops);
  suite_add_tcase(s, c);
}

int main(int argc, char **argv) {
  (void)argc;
  unsetenv("QUERNEL_TEMPLATES");
  Suite *s = suite_create("cli");
  add_tests(s, "rows", command, QN_COUNT(rows));
  add_tests(s, "broken_kernel", broken_kernel, QN_COUNT(refusals));
  add_tests(s, "foreign_cpu", foreign_cpu, 1);
  add_tests(s, "narrow_terminal", narrow_terminal, 1);
  add_tests(s, "ended_by_a_signal", ended_by_a_signal, QN_COUNT(ends));
  add_tests(s, "ended_by_a_kernel", ended_by_a_kernel, 1);
  return run_suite(s, argv[0]);
}
