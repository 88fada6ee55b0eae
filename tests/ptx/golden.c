/* golden.c - makes the golden PTX of this directory with NVRTC, so that the tests run where NVRTC is missing.
 *
 *     cc golden.c -I$CUDA/include -L$CUDA/lib64 -lnvrtc -o golden && ./golden mma.cu sm_80 > mma.sm_80.ptx
 *
 * Run by hand when a sample changes. One-shot: frees nothing. */
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  char source[1 << 16] = "", arch[64], *text;
  FILE *f = argc == 3 ? fopen(argv[1], "rb") : NULL;
  if (!f || !fread(source, 1, sizeof source - 1, f)) return fprintf(stderr, "golden FILE.cu sm_NN\n"), 2;
  snprintf(arch, sizeof arch, "--gpu-architecture=%s", argv[2]);
  const char *options[] = {arch, "-lineinfo"};
  nvrtcProgram p;
  size_t n;
  if (nvrtcCreateProgram(&p, source, argv[1], 0, NULL, NULL)) return 1;
  int bad = nvrtcCompileProgram(p, 2, options) != NVRTC_SUCCESS;
  if (bad ? nvrtcGetProgramLogSize(p, &n) : nvrtcGetPTXSize(p, &n)) return 1;
  text = malloc(n);
  if (bad ? nvrtcGetProgramLog(p, text) : nvrtcGetPTX(p, text)) return 1;
  fputs(text, bad ? stderr : stdout);
  return bad;
}
