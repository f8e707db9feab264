/*
 * gatewaytest.c: a session forwards everything as it is, and bounded
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "remotetestlib.h"

#define MIB (1024 * 1024)

static const gchar *const testFromClient[] = {
    TEST_LOOKUP_CALL,
    TEST_BLOCK_COPY_CALL,
    TEST_PING,
    TEST_STREAM_END,
    TEST_STREAM_EOF,
    TEST_HOLE,
    /* an unknown program, an unknown procedure, an unknown type and status */
    "00000020 12345678 00000007 00000001 00000000 00000000 00000000 cafebabe",
    "0000001c 20008086 00000001 0000ffff 00000000 ffffffff 00000000",
    "0000001c 20008086 00000001 00000001 00000007 00000003 00000009",
};

static const gchar *const testFromBackend[] = {
    TEST_LOOKUP_REPLY,
    TEST_BLOCK_JOB_EVENT,
    TEST_PING,
    TEST_STREAM_END,
    TEST_HOLE,
    "00000020 12345678 00000007 00000001 00000001 00000000 00000000 cafebabe",
    /* a length that is no multiple of 4: stream data */
    "0000001e 20008086 00000001 000000d1 00000003 00000004 00000002 abcd",
};

static void
testForward(int from, int to, const gchar *const *hexes, gsize count)
{
    gsize i;

    for (i = 0; i < count; i++) {
        g_autoptr(GByteArray) bytes = testBytes(hexes[i]);
        guint split;

        testSendBytes(from, bytes);
        testExpect(to, bytes);
        for (split = 1; split < bytes->len; split++) {
            testSend(from, bytes->data, split);
            while (g_main_context_iteration(NULL, FALSE))
                continue;
            g_assert_false(testHasInput(to));
            testSend(from, bytes->data + split, bytes->len - split);
            testExpect(to, bytes);
        }
    }
}

static void
testVectors(void)
{
    testSession session;

    testSessionStart(&session, 0, NULL, NULL);
    testForward(session.peer, session.backend, testFromClient,
                G_N_ELEMENTS(testFromClient));
    testForward(session.backend, session.peer, testFromBackend,
                G_N_ELEMENTS(testFromBackend));
    g_assert_cmpuint(virCheckpointClientQueuedBytes(session.client), ==, 0);
    testSessionStop(&session);
}

/* All vectors in one write arrive as they were sent, in order. */
static void
testGlued(void)
{
    testSession session;
    g_autoptr(GByteArray) all = g_byte_array_new();
    gsize i;

    testSessionStart(&session, 0, NULL, NULL);
    for (i = 0; i < G_N_ELEMENTS(testFromBackend); i++) {
        g_autoptr(GByteArray) bytes = testBytes(testFromBackend[i]);

        g_byte_array_append(all, bytes->data, bytes->len);
    }
    testSendBytes(session.backend, all);
    testExpect(session.peer, all);
    testSessionStop(&session);
}

static ino_t
testInode(int fd)
{
    struct stat sb;

    g_assert_cmpint(fstat(fd, &sb), ==, 0);
    return sb.st_ino;
}

/* Sends a packet with @count descriptors, each of another pipe, and takes them out. */
static void
testPassFds(int from, int to, gint32 type, guint count)
{
    guint8 payload[40] = {0};
    g_autoptr(virCheckpointFrame) frame = NULL;
    ino_t inodes[64];
    guint i;

    virCheckpointFramePutWord(payload, count);
    frame = virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE, 443, type, 3, 0,
                                  payload, sizeof(payload));
    testSendBytes(from, frame->bytes);
    for (i = 0; i < count; i++) {
        int fds[2];

        g_assert_cmpint(pipe(fds), ==, 0);
        inodes[i] = testInode(fds[1]);
        testSendFds(from, &fds[1], 1);
        close(fds[0]);
        close(fds[1]);
        while (g_main_context_iteration(NULL, FALSE))
            continue;
    }
    testExpect(to, frame->bytes);
    for (i = 0; i < count; i++) {
        int got = testReceiveFd(to);

        g_assert_cmpuint(testInode(got), ==, inodes[i]);
        close(got);
    }
}

static guint
testCountFds(void)
{
    guint count = 0;
    int fd;

    for (fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void
testDescriptors(void)
{
    testSession session;
    g_autoptr(GByteArray) ping = testBytes(TEST_PING);
    static const guint counts[] = {0, 1, 2, 32};
    guint before;
    gsize i;

    testSessionStart(&session, 0, NULL, NULL);
    before = testCountFds();
    for (i = 0; i < G_N_ELEMENTS(counts); i++) {
        testPassFds(session.peer, session.backend, VIR_CHECKPOINT_FRAME_CALL_WITH_FDS,
                    counts[i]);
        testPassFds(session.backend, session.peer, VIR_CHECKPOINT_FRAME_REPLY_WITH_FDS,
                    counts[i]);
        testSendBytes(session.peer, ping);
        testExpect(session.backend, ping);
    }
    g_assert_cmpuint(testCountFds(), ==, before);
    testSessionStop(&session);
}

/* What is no packet ends its session, after what came before it, and no other one. */
static void
testMalformed(const guint8 *data, gsize length, guint fds)
{
    g_autoptr(GByteArray) ping = testBytes(TEST_PING);
    testSession session;
    testSession other;
    int two[2] = {0, 1};

    testSessionStart(&session, 0, NULL, NULL);
    testSessionStart(&other, 0, NULL, NULL);
    testSendBytes(session.peer, ping);
    testSend(session.peer, data, length);
    if (fds > 0)
        testSendFds(session.peer, two, fds);
    testSessionWaitEnd(&session);
    testExpect(session.backend, ping);
    testExpectEnd(session.backend);
    testExpectEnd(session.peer);
    testSendBytes(other.peer, ping);
    testExpect(other.backend, ping);
    testSessionStop(&session);
    testSessionStop(&other);
}

static void
testMalformedFrames(void)
{
    static const guint8 tooShort[] = {0, 0, 0, 27};
    static const guint8 tooLong[] = {2, 0, 0, 5};
    guint8 withFds[32] = {0, 0, 0, 32, [19] = 4, [31] = 33};

    testMalformed(tooShort, sizeof(tooShort), 0);
    testMalformed(tooLong, sizeof(tooLong), 0);
    testMalformed(withFds, sizeof(withFds), 0);
    withFds[31] = 2;
    testMalformed(withFds, sizeof(withFds), 2);
}

/* A client that does not read stops its backend, not us, and gets all in the end. */
static void
testSlowReader(void)
{
    testSession session;
    g_autoptr(GByteArray) data = testPacket(VIR_CHECKPOINT_PROGRAM_REMOTE, 209,
                                            VIR_CHECKPOINT_FRAME_STREAM, 4, 262092, 7);
    gsize offset = 0;
    gsize packets = 0;
    gsize received = 0;
    guint quiet = 0;

    testSessionStart(&session, 0, NULL, NULL);
    while (quiet < 50) {
        gssize sent = send(session.backend, data->data + offset, data->len - offset,
                           MSG_DONTWAIT | MSG_NOSIGNAL);

        quiet = sent > 0 ? 0 : quiet + 1;
        offset += (gsize)MAX(sent, 0);
        packets += offset == data->len;
        offset %= data->len;
        while (g_main_context_iteration(NULL, FALSE))
            continue;
        g_assert_cmpuint(virCheckpointClientQueuedBytes(session.client), <,
                         MIB + 2 * data->len);
    }
    g_assert_cmpuint(packets, >, 3);
    g_assert_cmpuint(packets, <, 16);

    while (received < packets * data->len) {
        g_autoptr(GByteArray) got = testReceive(session.peer, data->len);

        g_assert_cmpmem(got->data, got->len, data->data, data->len);
        received += got->len;
    }
    testSessionStop(&session);
}

/* The largest packet passes; no more than it and a queue is held. */
static void
testLargestPacket(void)
{
    testSession session;
    g_autoptr(GByteArray) data =
        testPacket(VIR_CHECKPOINT_PROGRAM_REMOTE, 1000, VIR_CHECKPOINT_FRAME_CALL, 4,
                   VIR_CHECKPOINT_FRAME_MAX - VIR_CHECKPOINT_FRAME_HEADER, 9);
    g_autoptr(GByteArray) ping = testBytes(TEST_PING);

    testSessionStart(&session, 0, NULL, NULL);
    testSendBytes(session.peer, data);
    testSendBytes(session.peer, ping);
    testSettle();
    g_assert_cmpuint(virCheckpointClientQueuedBytes(session.client), <=, data->len);
    testExpect(session.backend, data);
    testExpect(session.backend, ping);
    testSessionStop(&session);
}

static void
testVanish(void)
{
    g_autoptr(GByteArray) ping = testBytes(TEST_PING);
    testSession session;
    guint i;

    /* Inside a packet, on either side: what was whole is delivered. */
    for (i = 0; i < 4; i++) {
        int *gone = NULL;
        int stays;

        testSessionStart(&session, 0, NULL, NULL);
        gone = i % 2 ? &session.peer : &session.backend;
        stays = i % 2 ? session.backend : session.peer;
        testSendBytes(*gone, ping);
        testSend(*gone, ping->data, i < 2 ? 0 : 17);
        close(*gone);
        *gone = -1;
        testSessionWaitEnd(&session);
        testExpect(stays, ping);
        testExpectEnd(stays);
        testSessionStop(&session);
    }
}

/* libvirt answers CLOSE and closes; a late PING to it loses nothing of the answer. */
static void
testBackendClosesFirst(void)
{
    g_autoptr(GByteArray) ping = testBytes(TEST_PING);
    g_autoptr(GByteArray) reply = testBytes(TEST_LOOKUP_REPLY);
    testSession session;

    testSessionStart(&session, 0, NULL, NULL);
    testSendBytes(session.backend, reply);
    close(session.backend);
    session.backend = -1;
    testSendBytes(session.peer, ping);
    testSessionWaitEnd(&session);
    testExpect(session.peer, reply);
    testExpectEnd(session.peer);
    testSessionStop(&session);
}

/* A client that goes while its backend does not take more: no spinning, no leak. */
static void
testGoneUnderPressure(void)
{
    testSession session;
    g_autoptr(GByteArray) data = testPacket(VIR_CHECKPOINT_PROGRAM_REMOTE, 1000,
                                            VIR_CHECKPOINT_FRAME_CALL, 4, MIB, 9);
    guint spins = 0;
    guint quiet = 0;
    gsize offset = 0;

    testSessionStart(&session, 0, NULL, NULL);
    while (quiet < 20) {
        gssize sent = send(session.peer, data->data + offset, data->len - offset,
                           MSG_DONTWAIT | MSG_NOSIGNAL);

        quiet = sent > 0 ? 0 : quiet + 1;
        offset = (offset + (gsize)MAX(sent, 0)) % data->len;
        while (g_main_context_iteration(NULL, FALSE))
            continue;
    }
    close(session.peer);
    session.peer = -1;
    g_source_remove(session.wake);
    while (g_main_context_iteration(NULL, FALSE))
        g_assert_cmpuint(++spins, <, 20);
    session.wake = g_timeout_add(10, testWake, NULL);
    g_assert_false(session.ended);
    testExpectEnd(session.backend);
    g_assert_true(session.ended);
    testSessionStop(&session);
}

/* Random bytes over a valid start: whatever leaves is what came in, whole packets. */
static void
testRandom(void)
{
    guint round;

    for (round = 0; round < 300; round++) {
        g_autoptr(GByteArray) sent = g_byte_array_new();
        g_autoptr(GByteArray) got = NULL;
        testSession session;
        guint packets = (guint)g_test_rand_int_range(1, 6);
        gsize at = 0;

        while (packets-- > 0) {
            const gchar *hex =
                testFromClient[g_test_rand_int_range(0, G_N_ELEMENTS(testFromClient))];
            g_autoptr(GByteArray) bytes = testBytes(hex);

            if (g_test_rand_int_range(0, 3) == 0)
                bytes->data[g_test_rand_int_range(0, (gint32)bytes->len)] ^=
                    (guint8)(1 << g_test_rand_int_range(0, 8));
            g_byte_array_append(sent, bytes->data, bytes->len);
        }
        testSessionStart(&session, 0, NULL, NULL);
        while (at < sent->len && !session.ended) {
            gsize chunk = (gsize)g_test_rand_int_range(1, 64);

            chunk = MIN(chunk, sent->len - at);
            if (send(session.peer, sent->data + at, chunk,
                     MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                break;
            at += chunk;
            while (g_main_context_iteration(NULL, FALSE))
                continue;
        }
        shutdown(session.peer, SHUT_WR);
        testSessionWaitEnd(&session);
        got = testReceive(session.backend, sent->len + 1);
        g_assert_cmpuint(got->len, <=, sent->len);
        g_assert_true(got->len == 0 || memcmp(got->data, sent->data, got->len) == 0);
        testSessionStop(&session);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/gateway/vectors-split-at-every-byte", testVectors);
    g_test_add_func("/gateway/vectors-in-one-write", testGlued);
    g_test_add_func("/gateway/descriptors-both-ways", testDescriptors);
    g_test_add_func("/gateway/malformed-ends-one-session", testMalformedFrames);
    g_test_add_func("/gateway/slow-reader-is-bounded", testSlowReader);
    g_test_add_func("/gateway/largest-packet", testLargestPacket);
    g_test_add_func("/gateway/peer-vanishes", testVanish);
    g_test_add_func("/gateway/backend-closes-first", testBackendClosesFirst);
    g_test_add_func("/gateway/gone-under-pressure", testGoneUnderPressure);
    g_test_add_func("/gateway/random-bytes", testRandom);
    return g_test_run();
}
