/*
 * frametest.c: packets, read and written
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_open.h"
#include "checkpoint_reader.h"
#include "checkpoint_writer.h"
#include "remotetestlib.h"

typedef struct testPair {
    int near;
    int far;
} testPair;

static testPair
testPairNew(void)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
    return (testPair){.near = fds[0], .far = fds[1]};
}

static void
testPairClose(testPair *pair)
{
    close(pair->near);
    close(pair->far);
}

static void
testFrameHeader(void)
{
    virCheckpointFrame *frame =
        virCheckpointFrameNewFromBytes(testBytes(TEST_LOOKUP_REPLY));
    g_autoptr(virCheckpointFrame) copy = NULL;
    gsize length = 0;

    g_assert_cmpuint(frame->program, ==, VIR_CHECKPOINT_PROGRAM_REMOTE);
    g_assert_cmpuint(frame->version, ==, 1);
    g_assert_cmpint(frame->procedure, ==, 23);
    g_assert_true(virCheckpointFrameIsReply(frame));
    g_assert_false(virCheckpointFrameIsCall(frame));
    g_assert_cmpuint(frame->serial, ==, 6);
    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_ERROR);
    g_assert_cmpuint(
        virCheckpointFrameGetWord(virCheckpointFramePayload(frame, &length)), ==, 42);
    g_assert_cmpuint(length, ==, 200 - 28);

    copy = virCheckpointFrameCopy(frame);
    virCheckpointFrameFree(frame);
    virCheckpointFrameSetSerial(copy, 0x80000001U);
    g_assert_cmpuint(virCheckpointFrameGetWord(copy->bytes->data + 20), ==,
                     0x80000001U);
    g_assert_null(virCheckpointFrameNewFromBytes(
        g_byte_array_append(g_byte_array_new(), (const guint8 *)"abc", 3)));
}

/* The error that we would make for the captured call, against the captured reply. */
static void
testFrameError(void)
{
    g_autoptr(GByteArray) callBytes = testBytes(TEST_LOOKUP_CALL);
    g_autoptr(virCheckpointFrame) call =
        virCheckpointFrameNewFromBytes(g_byte_array_ref(callBytes));
    g_autoptr(virCheckpointFrame) reply =
        virCheckpointFrameNewError(call, 42, 10, "no such");
    g_autoptr(GByteArray) want = testBytes(
        "00000068 20008086 00000001 00000017 00000001 00000006 00000001 "
        "0000002a 0000000a 00000001 00000007 6e6f2073 75636800 00000002 00000000 "
        "00000001 00000002 25730000 00000001 00000007 6e6f2073 75636800 00000000 "
        "ffffffff ffffffff 00000000");

    g_assert_cmpmem(reply->bytes->data, reply->bytes->len, want->data, want->len);
}

static void
testReadWhole(void)
{
    testPair pair = testPairNew();
    g_autoptr(GByteArray) bytes = testBytes(TEST_LOOKUP_CALL);
    g_autoptr(virCheckpointReader) reader = virCheckpointReaderNew();
    virCheckpointFrame *frame = NULL;
    guint i;

    /* Byte by byte, two packets: none is read into the other. */
    for (i = 0; i < 2 * bytes->len; i++) {
        g_assert_cmpint(virCheckpointReaderRead(reader, pair.near, &frame), ==,
                        VIR_CHECKPOINT_READER_MORE);
        testSend(pair.far, bytes->data + i % bytes->len, 1);
        if (i % bytes->len == bytes->len - 1) {
            g_assert_cmpint(virCheckpointReaderRead(reader, pair.near, &frame), ==,
                            VIR_CHECKPOINT_READER_FRAME);
            g_assert_cmpmem(frame->bytes->data, frame->bytes->len, bytes->data,
                            bytes->len);
            virCheckpointFrameFree(frame);
        }
    }
    close(pair.far);
    g_assert_cmpint(virCheckpointReaderRead(reader, pair.near, &frame), ==,
                    VIR_CHECKPOINT_READER_END);
    close(pair.near);
}

static virCheckpointReaderOutcome
testReadHex(const gchar *hex)
{
    testPair pair = testPairNew();
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(virCheckpointReader) reader = virCheckpointReaderNew();
    virCheckpointFrame *frame = NULL;
    virCheckpointReaderOutcome rc;

    for (; *hex; hex += *hex == ' ' ? 1 : 2) {
        guint8 byte = 0;

        if (*hex == ' ')
            continue;
        byte =
            (guint8)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
        g_byte_array_append(bytes, &byte, 1);
    }
    testSendBytes(pair.far, bytes);
    shutdown(pair.far, SHUT_WR);
    rc = virCheckpointReaderRead(reader, pair.near, &frame);
    if (rc == VIR_CHECKPOINT_READER_FRAME)
        virCheckpointFrameFree(frame);
    testPairClose(&pair);
    return rc;
}

static void
testReadLengths(void)
{
    /* 28 is the least, 33554436 the most; an end inside a packet is no clean end. */
    g_assert_cmpint(testReadHex(""), ==, VIR_CHECKPOINT_READER_END);
    g_assert_cmpint(testReadHex("0000"), ==, VIR_CHECKPOINT_READER_BROKEN);
    g_assert_cmpint(testReadHex("00000000"), ==, VIR_CHECKPOINT_READER_MALFORMED);
    g_assert_cmpint(testReadHex("0000001b"), ==, VIR_CHECKPOINT_READER_MALFORMED);
    g_assert_cmpint(testReadHex("0000001c"), ==, VIR_CHECKPOINT_READER_BROKEN);
    g_assert_cmpint(testReadHex("02000004 0000"), ==, VIR_CHECKPOINT_READER_BROKEN);
    g_assert_cmpint(testReadHex("02000005"), ==, VIR_CHECKPOINT_READER_MALFORMED);
    g_assert_cmpint(testReadHex("ffffffff"), ==, VIR_CHECKPOINT_READER_MALFORMED);
    g_assert_cmpint(testReadHex(TEST_PING), ==, VIR_CHECKPOINT_READER_FRAME);
}

#define TEST_WITH_FDS "20008086 00000001 00000157 00000004 00000001 00000000 "

static void
testReadDescriptorCounts(void)
{
    g_assert_cmpint(testReadHex("0000001c " TEST_WITH_FDS), ==,
                    VIR_CHECKPOINT_READER_MALFORMED);
    g_assert_cmpint(testReadHex("0000001f " TEST_WITH_FDS "000000"), ==,
                    VIR_CHECKPOINT_READER_MALFORMED);
    g_assert_cmpint(testReadHex("00000020 " TEST_WITH_FDS "00000000"), ==,
                    VIR_CHECKPOINT_READER_FRAME);
    g_assert_cmpint(testReadHex("00000020 " TEST_WITH_FDS "00000020"), ==,
                    VIR_CHECKPOINT_READER_BROKEN);
    g_assert_cmpint(testReadHex("00000020 " TEST_WITH_FDS "00000021"), ==,
                    VIR_CHECKPOINT_READER_MALFORMED);
    g_assert_cmpint(testReadHex("00000020 " TEST_WITH_FDS "ffffffff"), ==,
                    VIR_CHECKPOINT_READER_MALFORMED);
    /* A carrier byte without a descriptor. */
    g_assert_cmpint(testReadHex("00000020 " TEST_WITH_FDS "00000001 00"), ==,
                    VIR_CHECKPOINT_READER_MALFORMED);
}

static void
testReadTwoInOne(void)
{
    testPair pair = testPairNew();
    g_autoptr(GByteArray) bytes = testBytes("00000020 " TEST_WITH_FDS "00000002");
    g_autoptr(virCheckpointReader) reader = virCheckpointReaderNew();
    virCheckpointFrame *frame = NULL;
    int fds[2] = {0, 1};

    testSendBytes(pair.far, bytes);
    testSendFds(pair.far, fds, 2);
    g_assert_cmpint(virCheckpointReaderRead(reader, pair.near, &frame), ==,
                    VIR_CHECKPOINT_READER_MALFORMED);
    testPairClose(&pair);
}

/* A length that was only claimed takes no memory. */
static void
testReadGrowsWithWhatCame(void)
{
    testPair pair = testPairNew();
    g_autoptr(virCheckpointReader) reader = virCheckpointReaderNew();
    virCheckpointFrame *frame = NULL;
    guint8 head[100] = {0x02, 0x00, 0x00, 0x04};

    testSend(pair.far, head, sizeof(head));
    g_assert_cmpint(virCheckpointReaderRead(reader, pair.near, &frame), ==,
                    VIR_CHECKPOINT_READER_MORE);
    g_assert_cmpuint(virCheckpointReaderPending(reader), ==, sizeof(head));
    testPairClose(&pair);
}

static void
testWriteBlocked(void)
{
    testPair pair = testPairNew();
    g_autoptr(virCheckpointWriter) writer = virCheckpointWriterNew();
    g_autoptr(virCheckpointReader) reader = virCheckpointReaderNew();
    gsize length = 3 * 1024 * 1024;
    g_autofree guint8 *payload = g_malloc0(length);
    virCheckpointFrame *frame =
        virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE, 209,
                              VIR_CHECKPOINT_FRAME_STREAM, 4, 2, payload, length);

    frame->ours = FALSE;
    virCheckpointWriterPush(writer, frame);
    g_assert_cmpint(virCheckpointWriterFlush(writer, pair.near), ==,
                    VIR_CHECKPOINT_WRITER_BLOCKED);
    g_assert_cmpuint(virCheckpointWriterQueued(writer), ==, length + 28);
    g_assert_cmpuint(virCheckpointWriterQueuedOurs(writer), ==, 0);
    frame = NULL;
    while (virCheckpointReaderRead(reader, pair.far, &frame) ==
           VIR_CHECKPOINT_READER_MORE)
        virCheckpointWriterFlush(writer, pair.near);
    g_assert_nonnull(frame);
    g_assert_cmpuint(frame->bytes->len, ==, length + 28);
    virCheckpointFrameFree(frame);
    g_assert_cmpuint(virCheckpointWriterQueued(writer), ==, 0);

    virCheckpointWriterPush(writer,
                            virCheckpointFrameNewFromBytes(testBytes(TEST_PING)));
    close(pair.far);
    g_assert_cmpint(virCheckpointWriterFlush(writer, pair.near), ==,
                    VIR_CHECKPOINT_WRITER_BROKEN);
    close(pair.near);
}

static void
testOpenFlags(void)
{
    static const struct {
        const gchar *hex;
        gboolean decodes;
        guint32 flags;
    } cases[] = {
        /* absent name; empty name; name with padding; bytes behind; odd "present" */
        {"00000024 20008086 00000001 00000001 00000000 00000000 00000000 "
         "00000000 00000001",
         TRUE, 1},
        {"00000028 20008086 00000001 00000001 00000000 00000000 00000000 "
         "00000001 00000000 00000002",
         TRUE, 2},
        {"00000030 20008086 00000001 00000001 00000000 00000000 00000000 "
         "00000007 00000001 41000000 00000004 00000001",
         TRUE, 4},
        /* with descriptors: the count stands in front */
        {"00000028 20008086 00000001 00000001 00000004 00000000 00000000 "
         "00000000 00000000 00000008",
         TRUE, 8},
        /* too short, by a little and by a length that would overflow */
        {"00000020 20008086 00000001 00000001 00000000 00000000 00000000 00000000",
         FALSE, 0},
        {"0000001c 20008086 00000001 00000001 00000000 00000000 00000000", FALSE, 0},
        {"00000028 20008086 00000001 00000001 00000000 00000000 00000000 "
         "00000001 fffffffd 00000001",
         FALSE, 0},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(virCheckpointFrame) frame =
            virCheckpointFrameNewFromBytes(testBytes(cases[i].hex));
        guint32 flags = 0;

        g_assert_true(virCheckpointOpenIsCall(frame));
        g_assert_cmpint(virCheckpointOpenGetFlags(frame, &flags), ==, cases[i].decodes);
        g_assert_cmpuint(flags, ==, cases[i].flags);
        g_assert_cmpint(virCheckpointOpenAddFlags(frame, 1), ==, cases[i].decodes);
        if (!cases[i].decodes)
            continue;
        g_assert_true(virCheckpointOpenGetFlags(frame, &flags));
        g_assert_cmpuint(flags, ==, cases[i].flags | 1);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/frame/header-and-copy", testFrameHeader);
    g_test_add_func("/frame/error-as-captured", testFrameError);
    g_test_add_func("/frame/read-byte-by-byte", testReadWhole);
    g_test_add_func("/frame/read-lengths", testReadLengths);
    g_test_add_func("/frame/read-descriptor-counts", testReadDescriptorCounts);
    g_test_add_func("/frame/read-two-descriptors-in-one", testReadTwoInOne);
    g_test_add_func("/frame/read-grows-with-what-came", testReadGrowsWithWhatCame);
    g_test_add_func("/frame/write-blocked-then-broken", testWriteBlocked);
    g_test_add_func("/frame/open-flags", testOpenFlags);
    return g_test_run();
}
