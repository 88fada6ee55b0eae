/* lua_problem.h - problems for the generator: runtime/problem.c asked from Lua. */
#ifndef QN_LUA_PROBLEM_H
#define QN_LUA_PROBLEM_H
#include <lua.h>

/* problem(spelling [, format, act, out]) -> its parts; or nil, message, status. What is given takes the place of what
 * is spelled. The parts are
 *
 *   spelling, format, n, k, act, out    types that are not said are nil
 *   epilogue   the part of the spelling that is the epilogue, ""
 *   steps      of the epilogue: { { spelling =, operand = or nil, text = the step in C and CUDA (epilogue.h) }… }
 *   operands   in the order of operand.h: { { name =, type =, tokens = (one row for each), columns = (one element for
 *              each), stride = or nil }… }
 *   fields     of qn_function_args, in order: { { name =, number = }… } */
int qn__lua_problem(lua_State *L);
#endif
