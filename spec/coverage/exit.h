/*
 * exit.h - included before everything else in a build for coverage: a process that leaves by _exit
 * writes what it has counted, as one that leaves by exit does.
 */
#ifndef COVERAGE_EXIT_H
#define COVERAGE_EXIT_H

#include <unistd.h>

void __gcov_dump(void);

static inline _Noreturn void exit_counted(int status)
{
	__gcov_dump();
	_exit(status);
}

#define _exit exit_counted

#endif
