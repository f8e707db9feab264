/*
 * eventstest.c: block job events
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "dispatchfake.h"

#include <string.h>

#define OTHER_UUID "21111111-2222-4333-8444-555555555555"

typedef struct TestEvents {
    virCheckpointEngine *engine;
    virCheckpointDispatch *dispatch;
    virCheckpointClient *client;
} TestEvents;

static void
testOpen(TestEvents *test)
{
    test->engine = fakeEngineNew("");
    test->dispatch = virCheckpointDispatchNew(test->engine);
    test->engine->dispatch = test->dispatch;
    test->client = fakeClientNew();
}

static void
testClose(TestEvents *test)
{
    virCheckpointDispatchHooks()->closed(test->client, test->dispatch);
    virCheckpointDispatchFree(test->dispatch);
    virCheckpointClientUnref(test->client);
    fakeEngineFree(test->engine);
}

/** A call that is forwarded and its good reply with @value. */
static void
testRoundTrip(TestEvents *test, gint procedure, GBytes *bytes, gint value)
{
    const virCheckpointClientHooks *hooks = virCheckpointDispatchHooks();
    g_autoptr(virCheckpointFrame) call = fakeCall(procedure, 4, bytes);
    virCheckpointProtoInt number = {.value = value};
    g_autoptr(GBytes) payload = virCheckpointWireEncode(virCheckpointProtoInt, &number);
    g_autoptr(virCheckpointFrame) reply = virCheckpointFrameNew(
        VIR_CHECKPOINT_PROGRAM_REMOTE, procedure, VIR_CHECKPOINT_FRAME_REPLY, 4,
        VIR_CHECKPOINT_FRAME_OK, g_bytes_get_data(payload, NULL),
        g_bytes_get_size(payload));

    g_assert_cmpint(hooks->call(test->client, call, test->dispatch), ==,
                    VIR_CHECKPOINT_VERDICT_FORWARD);
    if (!test->client->tag)
        return;
    g_assert_cmpint(
        hooks->reply(test->client, reply, test->client->tag, test->dispatch), ==,
        VIR_CHECKPOINT_VERDICT_FORWARD);
    g_clear_pointer(&test->client->tag, test->client->freeTag);
}

static void
testRegister(TestEvents *test, gint event, const gchar *uuid, gint callback)
{
    virCheckpointProtoDomain dom = {.name = (gchar *)"d", .id = 7};
    virCheckpointProtoRegister args = {.event = event};

    if (uuid) {
        virCheckpointWireUuidParse(uuid, dom.uuid);
        args.dom = &dom;
    }
    testRoundTrip(test, 316, virCheckpointWireEncode(virCheckpointProtoRegister, &args),
                  callback);
}

static void
testInt(TestEvents *test, gint procedure, gint value)
{
    virCheckpointProtoInt args = {.value = value};

    testRoundTrip(test, procedure,
                  virCheckpointWireEncode(virCheckpointProtoInt, &args), 0);
}

static void
testEmit(TestEvents *test, gint status)
{
    const virCheckpointEngineEvent event = {
        .uuid = FAKE_UUID,
        .name = "now",
        .id = 7,
        .target = "vda",
        .source = "/a",
        .type = VIR_DOMAIN_BLOCK_JOB_TYPE_COPY,
        .status = status,
    };

    virCheckpointDispatchBlockJob(test->dispatch, &event);
}

static void
testExpect(
    TestEvents *test, guint count, gint procedure, gint callback, const gchar *disk)
{
    const virCheckpointFrame *frame = fakeWaitSent(test->client, count);
    g_auto(virCheckpointProtoBlockJob) event = {0};
    gsize length;
    const guint8 *payload = virCheckpointFramePayload(frame, &length);

    g_assert_cmpint(frame->procedure, ==, procedure);
    g_assert_cmpint(frame->type, ==, VIR_CHECKPOINT_FRAME_MESSAGE);
    g_assert_cmpuint(frame->serial, ==, 1);
    g_assert_cmpint(frame->status, ==, VIR_CHECKPOINT_FRAME_OK);
    g_assert_true(
        virCheckpointWireDecode(virCheckpointProtoBlockJob, payload, length, &event));
    g_assert_cmpint(event.callback, ==, callback);
    g_assert_cmpstr(event.dom.name, ==, "now");
    g_assert_cmpint(event.dom.id, ==, 7);
    g_assert_cmpstr(event.disk, ==, disk);
    g_assert_cmpint(event.type, ==, VIR_DOMAIN_BLOCK_JOB_TYPE_COPY);
}

static void
testRegistered(void)
{
    TestEvents test;

    testOpen(&test);
    testEmit(&test, 0);
    testRegister(&test, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, NULL, 23);
    testRegister(&test, VIR_DOMAIN_EVENT_ID_BLOCK_JOB, FAKE_UUID, 24);
    testRegister(&test, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, OTHER_UUID, 25);
    testRegister(&test, VIR_DOMAIN_EVENT_ID_LIFECYCLE, NULL, 26);
    testEmit(&test, VIR_DOMAIN_BLOCK_JOB_READY);
    testExpect(&test, 1, 339, 23, "vda");
    testExpect(&test, 2, 326, 24, "/a");
    testInt(&test, 317, 23);
    testEmit(&test, VIR_DOMAIN_BLOCK_JOB_COMPLETED);
    testExpect(&test, 3, 326, 24, "/a");
    testInt(&test, 317, 24);
    testEmit(&test, VIR_DOMAIN_BLOCK_JOB_COMPLETED);
    g_assert_cmpuint(test.client->sent->len, ==, 3);
    testClose(&test);
}

static void
testLegacy(void)
{
    TestEvents test;
    g_auto(virCheckpointProtoLegacyBlockJob) event = {0};
    const virCheckpointFrame *frame;
    const guint8 *payload;
    gsize length;

    testOpen(&test);
    testInt(&test, 167, VIR_DOMAIN_EVENT_ID_BLOCK_JOB);
    testEmit(&test, VIR_DOMAIN_BLOCK_JOB_READY);
    frame = fakeWaitSent(test.client, 1);
    payload = virCheckpointFramePayload(frame, &length);
    g_assert_cmpint(frame->procedure, ==, 241);
    g_assert_true(virCheckpointWireDecode(virCheckpointProtoLegacyBlockJob, payload,
                                          length, &event));
    g_assert_cmpstr(event.disk, ==, "/a");
    g_assert_cmpint(event.status, ==, VIR_DOMAIN_BLOCK_JOB_READY);
    testInt(&test, 168, VIR_DOMAIN_EVENT_ID_BLOCK_JOB);
    testEmit(&test, VIR_DOMAIN_BLOCK_JOB_READY);
    g_assert_cmpuint(test.client->sent->len, ==, 1);
    testClose(&test);
}

static void
testInvisible(void)
{
    TestEvents test;
    gint i;

    testOpen(&test);
    test.client->denied = VIR_ERR_NO_DOMAIN;
    testRegister(&test, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, NULL, 23);
    for (i = 0; i < 3; i++)
        testEmit(&test, VIR_DOMAIN_BLOCK_JOB_READY);
    while (test.client->asked->len == 0)
        g_main_context_iteration(NULL, FALSE);
    testEmit(&test, VIR_DOMAIN_BLOCK_JOB_COMPLETED);
    testClose(&test);
}

static void
testOrder(void)
{
    TestEvents test;
    gint i;

    testOpen(&test);
    testRegister(&test, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, NULL, 23);
    for (i = 0; i < 4; i++)
        testEmit(&test, i);
    for (i = 0; i < 4; i++) {
        const virCheckpointFrame *frame = fakeWaitSent(test.client, (guint)i + 1);

        /* The status is the last word. */
        g_assert_cmpint(frame->bytes->data[frame->bytes->len - 1], ==, i);
    }
    g_assert_cmpuint(test.client->asked->len, ==, 1);
    testClose(&test);
}

static void
testEventThenReply(void)
{
    virCheckpointProtoDomainTextFlags args = {.dom = {.name = (gchar *)"d"},
                                              .text = (gchar *)"vda"};
    TestEvents test;
    gint round;

    for (round = 0; round < 50; round++) {
        g_autoptr(virCheckpointFrame) abort = NULL;

        testOpen(&test);
        test.engine->disk = "vda";
        test.engine->emits = TRUE;
        virCheckpointWireUuidParse(FAKE_UUID, args.dom.uuid);
        testRegister(&test, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, NULL, 23);
        abort = fakeCall(
            237, 9, virCheckpointWireEncode(virCheckpointProtoDomainTextFlags, &args));
        g_assert_cmpint(
            virCheckpointDispatchHooks()->call(test.client, abort, test.dispatch), ==,
            VIR_CHECKPOINT_VERDICT_TAKEN);
        testExpect(&test, 1, 339, 23, "vda");
        g_assert_cmpint(fakeWaitSent(test.client, 2)->procedure, ==, 237);
        testClose(&test);
    }
}

static virCheckpointVerdict
testMessage(TestEvents *test, gint procedure, const gchar *disk)
{
    virCheckpointProtoBlockJob event = {
        .callback = 23, .dom = {.name = (gchar *)"d"}, .disk = (gchar *)disk};
    virCheckpointProtoLegacyBlockJob legacy = {.dom = event.dom, .disk = event.disk};
    g_autoptr(GBytes) bytes =
        procedure == 241
            ? virCheckpointWireEncode(virCheckpointProtoLegacyBlockJob, &legacy)
            : virCheckpointWireEncode(virCheckpointProtoBlockJob, &event);
    g_autoptr(virCheckpointFrame) frame =
        virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE, procedure,
                              VIR_CHECKPOINT_FRAME_MESSAGE, 1, VIR_CHECKPOINT_FRAME_OK,
                              g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));

    return virCheckpointDispatchHooks()->message(test->client, frame, test->dispatch);
}

static void
testHidden(void)
{
    TestEvents test;

    testOpen(&test);
    g_assert_cmpint(testMessage(&test, 339, "vda"), ==, VIR_CHECKPOINT_VERDICT_FORWARD);
    test.engine->disk = "vda";
    g_assert_cmpint(testMessage(&test, 339, "vda"), ==, VIR_CHECKPOINT_VERDICT_TAKEN);
    g_assert_cmpint(testMessage(&test, 339, "vdb"), ==, VIR_CHECKPOINT_VERDICT_FORWARD);
    g_assert_cmpint(testMessage(&test, 326, "/a"), ==, VIR_CHECKPOINT_VERDICT_TAKEN);
    g_assert_cmpint(testMessage(&test, 241, "/a"), ==, VIR_CHECKPOINT_VERDICT_TAKEN);
    g_assert_cmpint(testMessage(&test, 318, "vda"), ==, VIR_CHECKPOINT_VERDICT_FORWARD);
    testClose(&test);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/events/go-to-who-registered", testRegistered);
    g_test_add_func("/events/legacy-registration", testLegacy);
    g_test_add_func("/events/not-to-who-cannot-see-the-domain", testInvisible);
    g_test_add_func("/events/keep-their-order-while-visibility-is-asked", testOrder);
    g_test_add_func("/events/come-before-the-answer-to-an-abort", testEventThenReply);
    g_test_add_func("/events/of-inner-jobs-are-swallowed", testHidden);
    return g_test_run();
}
