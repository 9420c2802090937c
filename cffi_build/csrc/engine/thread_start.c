#define _DEFAULT_SOURCE 1 /* pthread_sigmask under -std=c11 */
#include "engine/thread_start.h"

#if defined(_WIN32)

int iq_thread_start(pthread_t *thread, void *(*main)(void *), void *argument) {
    return pthread_create(thread, NULL, main, argument);
}

#else

#include <signal.h>

int iq_thread_start(pthread_t *thread, void *(*main)(void *), void *argument) {
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS), sigdelset(&all, SIGSEGV), sigdelset(&all, SIGFPE), sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int failure = pthread_create(thread, NULL, main, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

#endif
