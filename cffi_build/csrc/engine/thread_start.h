/* Starting a thread of our own. */
#ifndef IQ_ENGINE_THREAD_START_H
#define IQ_ENGINE_THREAD_START_H

#include <pthread.h>

/* As pthread_create. Signals of the host program are its own business: our threads block them all, but for those that a
 * fault of the thread itself raises. The system ends a process that blocks them, past crash reporters and the map
 * guard. */
int iq_thread_start(pthread_t *thread, void *(*main)(void *), void *argument);

#endif
