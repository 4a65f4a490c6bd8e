/*
 * The calls behind sockets.h. An app has no network yet: creating a socket is refused, numeric addresses and localhost
 * resolve (so that code which only parses addresses works), other names do not.
 */
#include "sockets.h"

#undef PyErr_SetFromErrno

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_AVAILABLE "outgoing connections are not available to this app in wasgi"

PyObject *
wasgi_socket_error(PyObject *type)
{
    if (errno != EACCES)
        return PyErr_SetFromErrno(type);
    PyObject *args = Py_BuildValue("(is)", errno, NOT_AVAILABLE);
    if (args != NULL) {
        PyErr_SetObject(type, args);
        Py_DECREF(args);
    }
    return NULL;
}

/* EACCES: POSIX's word for "this process may not create such a socket". */
static int
refused(void)
{
    errno = EACCES;
    return -1;
}

int socket(int domain, int type, int protocol) { return refused(); }
int connect(int fd, const struct sockaddr *address, socklen_t length) { return refused(); }
int bind(int fd, const struct sockaddr *address, socklen_t length) { return refused(); }
int listen(int fd, int backlog) { return refused(); }
int setsockopt(int fd, int level, int name, const void *value, socklen_t length) { return refused(); }

/* A descriptor that the host passed in may be a socket, yet preview 1 cannot tell its names. */
int
getsockname(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
    errno = ENOTSOCK;
    return -1;
}

int
getpeername(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
    errno = ENOTCONN;
    return -1;
}

ssize_t
sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length)
{
    return address == NULL ? send(fd, data, size, flags) : refused();
}

ssize_t
recvfrom(int fd, void *restrict data, size_t size, int flags, struct sockaddr *restrict address,
         socklen_t *restrict length)
{
    if (length != NULL)
        *length = 0;
    return recv(fd, data, size, flags);
}

int
gethostname(char *name, size_t size)
{
    if (size < sizeof "localhost") {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(name, "localhost");
    return 0;
}

char *
inet_ntoa(struct in_addr address)
{
    static char text[INET_ADDRSTRLEN];

    return (char *)inet_ntop(AF_INET, &address, text, sizeof text);
}

/* One entry of a getaddrinfo() answer, with its address behind it in the same block. */
struct answer {
    struct addrinfo info;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
};

static const struct {
    int type;
    int protocol;
} TRANSPORTS[] = {{SOCK_STREAM, IPPROTO_TCP}, {SOCK_DGRAM, IPPROTO_UDP}};

/* 1 and the address if the name is a number, localhost or absent; 0 if it would have to be looked up. */
static int
known_address(const char *host, int flags, int family, struct answer *answer)
{
    memset(answer, 0, sizeof *answer);
    if (family != AF_INET6) {
        answer->info.ai_family = answer->address.v4.sin_family = AF_INET;
        answer->info.ai_addrlen = sizeof answer->address.v4;
        if (host == NULL && (flags & AI_PASSIVE))
            return 1; /* INADDR_ANY is all zeros */
        if (host == NULL || (strcmp(host, "localhost") == 0 && !(flags & AI_NUMERICHOST)))
            host = "127.0.0.1";
        return inet_pton(AF_INET, host, &answer->address.v4.sin_addr) == 1;
    }
    answer->info.ai_family = answer->address.v6.sin6_family = AF_INET6;
    answer->info.ai_addrlen = sizeof answer->address.v6;
    if (host == NULL && (flags & AI_PASSIVE))
        return 1;
    if (host == NULL || (strcmp(host, "localhost") == 0 && !(flags & AI_NUMERICHOST)))
        host = "::1";
    return inet_pton(AF_INET6, host, &answer->address.v6.sin6_addr) == 1;
}

int
getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
    static const struct addrinfo NO_HINTS;
    const struct addrinfo *want = hints != NULL ? hints : &NO_HINTS;
    struct addrinfo *list = NULL, **end = &list;
    unsigned long port = 0;
    int found = 0;

    if (want->ai_family != AF_UNSPEC && want->ai_family != AF_INET && want->ai_family != AF_INET6)
        return EAI_FAMILY;
    if (service != NULL) {
        char *rest;

        port = strtoul(service, &rest, 10);
        if (*rest != 0 || port > 65535)
            return EAI_SERVICE; /* there is no /etc/services */
    }
    for (int v6 = 0; v6 < 2; v6++) {
        struct answer model;

        if (want->ai_family != AF_UNSPEC && want->ai_family != (v6 ? AF_INET6 : AF_INET))
            continue;
        if (!known_address(host, want->ai_flags, v6 ? AF_INET6 : AF_INET, &model))
            continue;
        found = 1;
        if (v6)
            model.address.v6.sin6_port = htons((uint16_t)port);
        else
            model.address.v4.sin_port = htons((uint16_t)port);
        for (size_t i = 0; i < sizeof TRANSPORTS / sizeof *TRANSPORTS; i++) {
            struct answer *one;

            if ((want->ai_socktype != 0 && want->ai_socktype != TRANSPORTS[i].type)
                || (want->ai_protocol != 0 && want->ai_protocol != TRANSPORTS[i].protocol))
                continue;
            one = malloc(sizeof *one);
            if (one == NULL) {
                freeaddrinfo(list);
                return EAI_MEMORY;
            }
            *one = model;
            one->info.ai_socktype = TRANSPORTS[i].type;
            one->info.ai_protocol = TRANSPORTS[i].protocol;
            one->info.ai_addr = &one->address.any;
            if (list == NULL && (want->ai_flags & AI_CANONNAME))
                one->info.ai_canonname = strdup(host != NULL ? host : "localhost");
            *end = &one->info;
            end = &one->info.ai_next;
        }
    }
    if (!found)
        return (want->ai_flags & AI_NUMERICHOST) ? EAI_NONAME : EAI_FAIL;
    if (list == NULL)
        return EAI_SOCKTYPE;
    *result = list;
    return 0;
}

void
freeaddrinfo(struct addrinfo *list)
{
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;

        free(list->ai_canonname);
        free(list); /* the info is the first member of its answer */
        list = next;
    }
}

int
getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size, char *service,
            socklen_t service_size, int flags)
{
    const void *ip;
    uint16_t port;

    if (address->sa_family == AF_INET) {
        ip = &((const struct sockaddr_in *)address)->sin_addr;
        port = ((const struct sockaddr_in *)address)->sin_port;
    }
    else if (address->sa_family == AF_INET6) {
        ip = &((const struct sockaddr_in6 *)address)->sin6_addr;
        port = ((const struct sockaddr_in6 *)address)->sin6_port;
    }
    else {
        return EAI_FAMILY;
    }
    if (flags & NI_NAMEREQD)
        return EAI_NONAME;
    if (host != NULL && host_size > 0 && inet_ntop(address->sa_family, ip, host, host_size) == NULL)
        return EAI_OVERFLOW;
    if (service != NULL && service_size > 0
        && snprintf(service, service_size, "%u", ntohs(port)) >= (int)service_size)
        return EAI_OVERFLOW;
    return 0;
}

const char *
gai_strerror(int code)
{
    switch (code) {
    case EAI_NONAME: return "Name does not resolve";
    case EAI_FAIL: return "the name cannot be looked up: " NOT_AVAILABLE;
    case EAI_FAMILY: return "Unrecognized address family or invalid length";
    case EAI_SOCKTYPE: return "Unrecognized socket type";
    case EAI_SERVICE: return "Unrecognized service";
    case EAI_MEMORY: return "Out of memory";
    case EAI_OVERFLOW: return "Overflow";
    default: return "Unknown error";
    }
}

int h_errno;

const char *
hstrerror(int code)
{
    return code == HOST_NOT_FOUND ? "Host not found" : "the name cannot be looked up: " NOT_AVAILABLE;
}

/* localhost, however it was asked for. */
static struct hostent *
localhost(void)
{
    static struct in_addr loopback;
    static char *aliases[] = {NULL};
    static char *addresses[] = {(char *)&loopback, NULL};
    static struct hostent host = {"localhost", aliases, AF_INET, sizeof loopback, addresses};

    loopback.s_addr = htonl(INADDR_LOOPBACK);
    return &host;
}

struct hostent *
gethostbyname(const char *name)
{
    if (strcmp(name, "localhost") == 0 || strcmp(name, "127.0.0.1") == 0)
        return localhost();
    h_errno = NO_RECOVERY;
    return NULL;
}

struct hostent *
gethostbyaddr(const void *address, socklen_t length, int family)
{
    if (family == AF_INET && length == sizeof(struct in_addr)
        && ((const struct in_addr *)address)->s_addr == htonl(INADDR_LOOPBACK))
        return localhost();
    h_errno = HOST_NOT_FOUND;
    return NULL;
}

struct servent *getservbyname(const char *name, const char *protocol) { return NULL; }
struct servent *getservbyport(int port, const char *protocol) { return NULL; }
struct protoent *getprotobyname(const char *name) { return NULL; }
