FROM node:24-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM node:24-bookworm-slim
WORKDIR /app
ENV NODE_ENV=production \
    BERTH_HTTP_HOST=0.0.0.0 \
    BERTH_DATA_DIR=/var/lib/berth
RUN mkdir -p /var/lib/berth && chown node:node /var/lib/berth && ln -s /app/bin/berth.js /usr/local/bin/berth
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json LICENSE ./
COPY bin ./bin
COPY migrations ./migrations
COPY src ./src
USER node
VOLUME /var/lib/berth
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["node", "bin/berth.js", "health"]
ENTRYPOINT ["node", "bin/berth.js"]
CMD ["serve"]
