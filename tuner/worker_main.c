/* worker_main.c - the program quernel-worker. */
#include "tuner.h"

int main(int argc, char **argv) { return qn_worker_main(argc, argv); }
