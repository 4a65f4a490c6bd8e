/*
 * Included first into CPython's socketmodule.c: the constants and calls that WASI preview 1 lacks. With them the module
 * exists and everything that imports it works; opening a socket fails, with a message that says why.
 */
#ifndef WASGI_SOCKETS_H
#define WASGI_SOCKETS_H

#include "pyconfig.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define ENABLE_IPV6 1
#define HAVE_ADDRINFO 1
#define HAVE_BIND 1
#define HAVE_CONNECT 1
#define HAVE_GAI_STRERROR 1
#define HAVE_GETADDRINFO 1
#define HAVE_GETHOSTBYADDR 1
#define HAVE_GETHOSTBYNAME 1
#define HAVE_GETHOSTNAME 1
#define HAVE_GETNAMEINFO 1
#define HAVE_GETPEERNAME 1
#define HAVE_GETPROTOBYNAME 1
#define HAVE_GETSERVBYNAME 1
#define HAVE_GETSERVBYPORT 1
#define HAVE_GETSOCKNAME 1
#define HAVE_HSTRERROR 1
#define HAVE_INET_NTOA 1
#define HAVE_LISTEN 1
#define HAVE_NETDB_H 1
#define HAVE_RECVFROM 1
#define HAVE_SENDTO 1
#define HAVE_SETSOCKOPT 1
#define HAVE_SOCKET 1

/* Numbers as on Linux, where preview 1 has none of its own. */
#ifndef SOCK_RAW
#define SOCK_RAW 3
#endif
#ifndef SOMAXCONN
#define SOMAXCONN 128
#endif
#ifndef MSG_DONTWAIT
#define MSG_DONTWAIT 0x0040
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0x4000
#endif
#ifndef SO_REUSEADDR
#define SO_REUSEADDR 2
#define SO_ERROR 4
#define SO_BROADCAST 6
#define SO_SNDBUF 7
#define SO_RCVBUF 8
#define SO_KEEPALIVE 9
#define SO_LINGER 13
#define SO_REUSEPORT 15
#define SO_ACCEPTCONN 30
#endif
#ifndef SOL_TCP
#define SOL_IP 0
#define SOL_TCP 6
#define SOL_UDP 17
#endif

int socket(int domain, int type, int protocol);
int connect(int fd, const struct sockaddr *address, socklen_t length);
int bind(int fd, const struct sockaddr *address, socklen_t length);
int listen(int fd, int backlog);
int getsockname(int fd, struct sockaddr *restrict address, socklen_t *restrict length);
int getpeername(int fd, struct sockaddr *restrict address, socklen_t *restrict length);
int setsockopt(int fd, int level, int name, const void *value, socklen_t length);
ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length);
ssize_t recvfrom(int fd, void *restrict data, size_t size, int flags, struct sockaddr *restrict address,
                 socklen_t *restrict length);
int gethostname(char *name, size_t size);
char *inet_ntoa(struct in_addr address);

/* CPython makes the text of an OSError from errno alone; this one knows what was refused here. */
#include "Python.h"
PyObject *wasgi_socket_error(PyObject *type);
#define PyErr_SetFromErrno wasgi_socket_error

#endif
