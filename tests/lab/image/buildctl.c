/*
 * The two things buildx asks of buildctl inside a builder, done against an engine's own socket.
 *
 *   buildctl dial-stdio     a gRPC connection to BuildKit on stdin and stdout
 *   buildctl debug workers  exit 0 once the socket answers
 *
 * The engine serves its embedded BuildKit on POST /grpc with an upgrade to h2c (moby's daemon/server/router/grpc).
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET "/run/docker.sock"

static const char request[] =
    "POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n";
static const char ping[] = "GET /_ping HTTP/1.0\r\n\r\n";

static int fail(const char *what) {
    fprintf(stderr, "buildctl (lab): %s: %s\n", what, strerror(errno));
    return 1;
}

static int put(int to, const char *data, ssize_t left) {
    while (left > 0) {
        ssize_t done = write(to, data, left);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        data += done;
        left -= done;
    }
    return 0;
}

static int dial(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    return fd;
}

/* The response head, byte for byte: what follows it belongs to HTTP/2. */
static int head(int fd, char *text, size_t room) {
    size_t used = 0;
    while (used + 1 < room) {
        if (read(fd, text + used, 1) != 1)
            return -1;
        text[++used] = 0;
        if (used >= 4 && !strcmp(text + used - 4, "\r\n\r\n"))
            return 0;
    }
    return -1;
}

static int pump(int fd) {
    struct pollfd both[2] = {{.fd = 0, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    static char buffer[65536];
    for (;;) {
        if (poll(both, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return fail("poll");
        }
        if (both[1].revents) {
            ssize_t got = read(fd, buffer, sizeof buffer);
            if (got <= 0)
                return 0;
            if (put(1, buffer, got) < 0)
                return fail("stdout");
        }
        if (both[0].revents) {
            ssize_t got = read(0, buffer, sizeof buffer);
            if (got <= 0) {
                shutdown(fd, SHUT_WR);
                both[0].fd = -1;
                both[0].revents = 0;
            } else if (put(fd, buffer, got) < 0) {
                return fail("the engine");
            }
        }
    }
}

int main(int count, char **words) {
    char text[4096];
    int fd, dialling = 0, asking = 0;
    for (int i = 1; i < count; i++) {
        dialling |= !strcmp(words[i], "dial-stdio");
        asking |= !strcmp(words[i], "workers");
    }
    signal(SIGPIPE, SIG_IGN);
    if (!dialling && !asking) {
        puts("buildctl (lab) v0.25.1");
        return 0;
    }
    if ((fd = dial()) < 0)
        return fail(SOCKET);
    if (put(fd, dialling ? request : ping, (dialling ? sizeof request : sizeof ping) - 1) < 0 || head(fd, text, sizeof text) < 0)
        return fail("no answer from the engine");
    if (asking)
        return strstr(text, " 200 ") ? 0 : 1;
    if (strncmp(text, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "buildctl (lab): the engine refused the upgrade: %s", text);
        return 1;
    }
    return pump(fd);
}
