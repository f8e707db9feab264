/*
 * remotetestlib.h: a session between two socket pairs, and packets for it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef REMOTETESTLIB_H
#define REMOTETESTLIB_H

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_client.h"
#include "checkpoint_frame.h"

#define TEST_PATIENCE_USEC (20 * G_USEC_PER_SEC)

/* Sent in the order of the words; see docs of libvirt's protocol.  Captured from stock
 * clients and daemons. */
#define TEST_LOOKUP_CALL                                                               \
    "00000028 20008086 00000001 00000017 00000000 00000006 00000000 "                  \
    "00000007 6e6f2d73 75636800"
#define TEST_LOOKUP_REPLY                                                              \
    "000000c8 20008086 00000001 00000017 00000001 00000006 00000001 "                  \
    "0000002a 0000000a 00000001 00000038 446f6d61 696e206e 6f742066 6f756e64 "         \
    "3a206e6f 20646f6d 61696e20 77697468 206d6174 6368696e 67206e61 6d652027 "         \
    "6e6f2d73 75636827 00000002 00000000 00000001 00000014 446f6d61 696e206e "         \
    "6f742066 6f756e64 3a202573 00000001 00000026 6e6f2064 6f6d6169 6e207769 "         \
    "7468206d 61746368 696e6720 6e616d65 20276e6f 2d737563 68270000 00000000 "         \
    "ffffffff ffffffff 00000000"
#define TEST_BLOCK_JOB_EVENT                                                           \
    "0000004c 20008086 00000001 00000153 00000002 00000001 00000000 "                  \
    "00000017 00000004 72706366 11111111 22224333 84445555 55555555 00000013 "         \
    "00000003 76646100 00000005 00000002"
#define TEST_BLOCK_COPY_CALL                                                           \
    "000000a8 20008086 00000001 00000159 00000000 00000009 00000000 "                  \
    "00000004 72706366 11111111 22224333 84445555 55555555 00000013 "                  \
    "00000003 76646100 00000043 3c646973 6b207479 70653d27 66696c65 273e3c73 "         \
    "6f757263 65206669 6c653d27 2f78272f 3e3c6472 69766572 20747970 "                  \
    "653d2771 636f7732 272f3e3c 2f646973 6b3e0a00 00000001 00000006 6269746d "         \
    "61700000 00000007 00000002 62300000 00000004"
#define TEST_PING "0000001c 6b656570 00000001 00000001 00000002 00000000 00000000"
#define TEST_STREAM_END "0000001c 20008086 00000001 000000d1 00000003 00000004 00000000"
#define TEST_STREAM_EOF "0000001c 20008086 00000001 000000d1 00000003 00000004 00000002"
#define TEST_HOLE                                                                      \
    "00000028 20008086 00000001 000000d1 00000006 00000004 00000002 "                  \
    "00000000 00100000 00000000"

static inline GByteArray *
testBytes(const gchar *hex)
{
    GByteArray *bytes = g_byte_array_new();

    while (*hex) {
        guint8 byte = 0;

        if (*hex == ' ') {
            hex++;
            continue;
        }
        byte =
            (guint8)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
        g_byte_array_append(bytes, &byte, 1);
        hex += 2;
    }
    g_assert_cmpuint(virCheckpointFrameGetWord(bytes->data), ==, bytes->len);
    return bytes;
}

/* A packet of @length payload bytes, each of them @fill. */
static inline GByteArray *
testPacket(guint32 program,
           gint32 procedure,
           gint32 type,
           guint32 serial,
           gsize length,
           guint8 fill)
{
    g_autofree guint8 *payload = g_malloc(length + 1);
    g_autoptr(virCheckpointFrame) frame = NULL;

    memset(payload, fill, length);
    frame = virCheckpointFrameNew(program, procedure, type, serial,
                                  type == VIR_CHECKPOINT_FRAME_STREAM ? 2 : 0, payload,
                                  length);
    return g_byte_array_ref(frame->bytes);
}

static inline gboolean
testWake(gpointer data)
{
    return G_SOURCE_CONTINUE;
}

/* Runs the main context until nothing has happened for a moment. */
static inline void
testSettle(void)
{
    guint i;

    for (i = 0; i < 3; i++) {
        while (g_main_context_iteration(NULL, FALSE))
            continue;
        g_usleep(200);
    }
}

static inline void
testSend(int fd, const guint8 *data, gsize length)
{
    gint64 until = g_get_monotonic_time() + TEST_PATIENCE_USEC;

    while (length > 0) {
        gssize sent = send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent > 0) {
            data += sent;
            length -= (gsize)sent;
            continue;
        }
        g_assert_cmpint(errno, ==, EAGAIN);
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_main_context_iteration(NULL, FALSE);
    }
}

static inline void
testSendBytes(int fd, const GByteArray *bytes)
{
    testSend(fd, bytes->data, bytes->len);
}

/* One byte with descriptors, as a libvirt peer sends each of its descriptors. */
static inline void
testSendFds(int fd, const int *fds, guint count)
{
    char control[CMSG_SPACE(8 * sizeof(int))] = {0};
    guint8 byte = 0;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *cmsg = NULL;

    g_assert_cmpuint(count, <=, 8);
    if (count > 0) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
    }
    g_assert_cmpint(sendmsg(fd, &msg, MSG_NOSIGNAL), ==, 1);
}

/* Reads exactly one byte that must carry exactly one descriptor; returns that. */
static inline int
testReceiveFd(int fd)
{
    char control[CMSG_SPACE(8 * sizeof(int))] = {0};
    guint8 byte = 1;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg = NULL;
    gint64 until = g_get_monotonic_time() + TEST_PATIENCE_USEC;
    int got = -1;

    while (recvmsg(fd, &msg, MSG_DONTWAIT) != 1) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_main_context_iteration(NULL, FALSE);
    }
    cmsg = CMSG_FIRSTHDR(&msg);
    g_assert_nonnull(cmsg);
    g_assert_cmpuint(cmsg->cmsg_len, ==, CMSG_LEN(sizeof(int)));
    memcpy(&got, CMSG_DATA(cmsg), sizeof(int));
    g_assert_cmpuint(byte, ==, 0);
    return got;
}

/* Reads exactly @length bytes, or as many as come before the end. */
static inline GByteArray *
testReceive(int fd, gsize length)
{
    GByteArray *bytes = g_byte_array_new();
    gint64 until = g_get_monotonic_time() + TEST_PATIENCE_USEC;

    while (bytes->len < length) {
        guint8 chunk[65536];
        gssize got =
            recv(fd, chunk, MIN(sizeof(chunk), length - bytes->len), MSG_DONTWAIT);

        if (got > 0) {
            g_byte_array_append(bytes, chunk, (guint)got);
            continue;
        }
        if (got == 0 || errno != EAGAIN)
            break;
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_main_context_iteration(NULL, FALSE);
    }
    return bytes;
}

static inline void
testExpect(int fd, const GByteArray *want)
{
    g_autoptr(GByteArray) got = testReceive(fd, want->len);

    g_assert_cmpmem(got->data, got->len, want->data, want->len);
}

static inline gboolean
testHasInput(int fd)
{
    guint8 byte = 0;

    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0;
}

static inline void
testExpectNothing(int fd)
{
    testSettle();
    g_assert_false(testHasInput(fd));
}

/* The other end is closed, behind whatever it sent. */
static inline void
testExpectEnd(int fd)
{
    g_autoptr(GByteArray) rest = testReceive(fd, G_MAXUINT32);

    g_assert_cmpuint(rest->len, <, G_MAXUINT32);
}

/** A session and the far ends of its two sockets. */
typedef struct testSession {
    virCheckpointClient *client;
    int peer;    /* we play the client here */
    int backend; /* and libvirt here */
    gboolean ended;
    guint wake;
} testSession;

static inline void
testSessionEnded(virCheckpointClient *client, gpointer data)
{
    testSession *session = data;

    session->ended = TRUE;
}

static inline void
testSessionStart(testSession *session,
                 virCheckpointClientFlags flags,
                 const virCheckpointClientHooks *hooks,
                 gpointer data)
{
    int front[2];
    int back[2];

    memset(session, 0, sizeof(*session));
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, front), ==, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, back), ==, 0);
    session->peer = front[0];
    session->backend = back[0];
    session->wake = g_timeout_add(10, testWake, NULL);
    session->client = virCheckpointClientNew(front[1], back[1], flags, hooks, data,
                                             testSessionEnded, session);
}

static inline void
testSessionStop(testSession *session)
{
    virCheckpointClientClose(session->client);
    g_assert_true(session->ended);
    virCheckpointClientUnref(session->client);
    if (session->peer >= 0)
        close(session->peer);
    if (session->backend >= 0)
        close(session->backend);
    g_source_remove(session->wake);
    testSettle();
}

static inline void
testSessionWaitEnd(testSession *session)
{
    gint64 until = g_get_monotonic_time() + TEST_PATIENCE_USEC;

    while (!session->ended) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_main_context_iteration(NULL, TRUE);
    }
}

/* Opens the connection as a stock client does, with a driver of that type. */
static inline void
testSessionOpen(testSession *session, const gchar *type, gboolean hooked)
{
    g_autoptr(GByteArray) call =
        testBytes("00000038 20008086 00000001 00000001 00000000 00000002 00000000 "
                  "00000001 0000000e 71656d75 3a2f2f2f 73797374 656d0000 00000000");
    g_autoptr(GByteArray) reply =
        testBytes("0000001c 20008086 00000001 00000001 00000001 00000002 00000000");
    g_autoptr(GByteArray) ask =
        testBytes("0000001c 20008086 00000001 00000003 00000000 80000000 00000000");
    guint8 payload[64] = {0};
    gsize length = strlen(type);
    g_autoptr(virCheckpointFrame) answer = NULL;

    testSendBytes(session->peer, call);
    testExpect(session->backend, call);
    testSendBytes(session->backend, reply);
    testExpect(session->peer, reply);
    if (!hooked)
        return;

    testExpect(session->backend, ask);
    virCheckpointFramePutWord(payload, (guint32)length);
    memcpy(payload + 4, type, length);
    answer = virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE, 3,
                                   VIR_CHECKPOINT_FRAME_REPLY, 0x80000000U, 0, payload,
                                   4 + (length + 3) / 4 * 4);
    testSendBytes(session->backend, answer->bytes);
    testExpectNothing(session->peer);
}

#endif
