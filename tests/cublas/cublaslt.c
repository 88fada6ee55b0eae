/* cublaslt.c - the other half of the invented libcublas. */
int cublaslt(void);
__attribute__((visibility("default"))) int cublaslt(void) { return 0; }
