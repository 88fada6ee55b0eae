/* worker_main.c - the worker as a program: quernel-worker DEVICE. Started by the tuner, never by hand. */
#include "tuner.h"

int main(int argc, char **argv) { return qn__worker_main(argc, argv); }
